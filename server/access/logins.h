/* logins — everybody who may log in, at one time: tokens, certificates, users.
 *
 * Made on the main thread, whole or not at all, and never changed; who looks somebody
 * up holds a reference. Reading the files again makes another one.
 */
#ifndef OPTIMD_SERVER_ACCESS_LOGINS_H
#define OPTIMD_SERVER_ACCESS_LOGINS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/access/login_list.h"

enum { LOGINS_USERS_MAX = 64 };

/* What the operator has said. Texts are borrowed for the call; "": nothing. */
struct logins_source {
    const char *tokens;       /* file of tokens */
    const char *certificates; /* file of certificates' names */
    const char *users;        /* "alice=worker,1000=reader,*=admin" of Unix sockets */
};

/* A user of this machine, or all others. */
struct logins_user {
    bool any;
    uint64_t uid;
    struct login login;
};

struct logins {
    atomic_uint references;
    struct login_list tokens, certificates;
    bool has_tokens, has_certificates, has_users; /* something was said */
    struct logins_user users[LOGINS_USERS_MAX];
    size_t user_count;
    char *user_text;
    struct login by_role[ROLE_COUNT]; /* of certificates that say it themselves */
};

/* Returns one reference. The sentence of a failure names file and line, or the word of
 * users that is wrong. */
enum opt_status logins_read(const struct logins_source *source, struct logins **out,
                            struct opt_error *error);
struct logins *logins_ref(struct logins *logins);
void logins_unref(struct logins *logins); /* NULL is allowed */

/* Whose token has this SHA-256, or NULL. All of them are compared, in a time that tells
 * nothing. */
const struct login *logins_token(const struct logins *logins,
                                 const uint8_t digest[LOGIN_DIGEST]);

/* What the names of a certificate, with blanks between, are a login for, or NULL: the
 * first line of the file that fits. Without a file, what the certificate says itself by
 * URI:optimd:role=ROLE. */
const struct login *logins_certificate(const struct logins *logins, const char *names);

/* What a user of this machine may on a Unix socket, or NULL. */
const struct login *logins_user(const struct logins *logins, uint64_t uid);

#endif
