/* access — who a peer is to the daemon, and whether it may do what it asks for.
 *
 * A peer is a visitor until its hello. What it is then depends on where it comes from:
 *
 *   a token, wherever it comes from    what the file of tokens says
 *   a certificate, over TLS            what the file of certificates says, or itself
 *   a Unix socket                      what the list of users says; without one, admin
 *   this machine, over TCP             admin
 *   anywhere else                      nothing; admin if the daemon is insecure
 *
 * Where the daemon requires logins, the last three are nothing without a list. A login
 * is looked at again with every request: it may have ended, or been taken back.
 *
 * main makes it and has it read its files again; everything else is called in the
 * engine's turn, by the one place that admits requests and those that find models.
 */
#ifndef OPTIMD_SERVER_ACCESS_ACCESS_H
#define OPTIMD_SERVER_ACCESS_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/access/logins.h"
#include "server/access/role.h"

enum { ACCESS_TOKEN_MAX = 512 /* bytes of one */ };

struct access;

struct access_settings {
    struct logins_source source;
    bool required; /* a login, from everybody */
    bool insecure; /* strangers are served without one */
};

/* Where a peer comes from. */
enum origin {
    ORIGIN_INSIDE, /* the daemon itself: not asked who it is */
    ORIGIN_MACHINE,
    ORIGIN_UNIX,
    ORIGIN_STRANGE
};

/* What is known of a peer. All zero: one from inside. */
struct visitor {
    enum origin origin;
    uint64_t uid;      /* ORIGIN_UNIX; UINT64_MAX: not known */
    const char *names; /* of its certificate, borrowed; NULL: it has none */
    bool has_token;
    uint8_t digest[LOGIN_DIGEST];
    struct logins *logins;     /* one reference; NULL: nobody yet, or from inside */
    const struct login *login; /* of them */
    uint64_t made;             /* when they were read, as the access counts */
};

/* By the address that the log shows, and what its connection has proved ("uid=1000",
 * names of a certificate, or NULL), which is borrowed as long as the visitor lives. */
void visitor_init(struct visitor *visitor, const char *address, const char *identity);
void visitor_fini(struct visitor *visitor);

/* Read everything that logins come from. The sentence of a failure says where it is
 * wrong. Main thread. */
enum opt_status access_new(const struct access_settings *settings, struct access **out,
                           struct opt_error *error);
void access_free(struct access *access); /* NULL is allowed */
/* The same anew, for visitors to come and, with their next request, those that are
 * there. If it fails, all stays as it was. Main thread. */
enum opt_status access_reload(struct access *access,
                              const struct access_settings *settings,
                              struct opt_error *error);
/* How many tokens there are, for the log. Main thread. */
size_t access_tokens(const struct access *access);

/* The visitor says hello with that token (size 0: none), as that worker ("": an
 * observer). OPT_UNAUTHENTICATED with one sentence for all that can be wrong;
 * OPT_PERMISSION_DENIED if it is somebody who may not speak for the worker. */
enum opt_status access_greet(struct access *access, struct visitor *visitor,
                             const uint8_t *token, size_t size, const char *worker,
                             struct opt_error *error);

/* Whether it, as that worker, may ask for that at all. OPT_UNAUTHENTICATED: its login
 * has ended, was taken back, or is not for the worker any more. OPT_PERMISSION_DENIED.
 */
enum opt_status access_check(struct access *access, struct visitor *visitor,
                             const char *worker, enum role least, const char *what,
                             struct opt_error *error);

/* Whether it may use the model of that name, whether there is one or not. Of a visitor
 * that has been checked. */
bool access_model(const struct visitor *visitor, const char *model);
/* Whether that is true of every model there can be. */
bool access_all_models(const struct visitor *visitor);
/* access_model, with OPT_PERMISSION_DENIED. */
enum opt_status access_model_check(const struct visitor *visitor, const char *model,
                                   struct opt_error *error);

/* Its name and role, for the log: "-" and none before hello. */
const char *access_name(const struct visitor *visitor);
enum role access_role(const struct visitor *visitor);

#endif
