/* login_list — who may log in, as a file says it: one line for each.
 *
 *   # name  role    what proves it, and what it is for
 *   mlp-7   worker  sha256=9f86d081884c7d65...  models=mnist-*  workers=mlp-7
 *   board   reader  sha256=2c26b46b68ffc68f...  expires=2027-01-31T12:00:00Z
 *
 * In a file of tokens each line has sha256, the SHA-256 of the token; in one of
 * certificates it has subject, patterns for one of the names in it (CN=..., DNS:...).
 * models and workers are patterns with commas between: which models it may use, and for
 * which workers it may speak; without them, all. Lines that are empty or begin with #
 * mean nothing. The daemon reads it on its main thread; optctl does too.
 */
#ifndef OPTIMD_SERVER_ACCESS_LOGIN_LIST_H
#define OPTIMD_SERVER_ACCESS_LOGIN_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/access/patterns.h"
#include "server/access/role.h"

enum {
    LOGIN_DIGEST = 32,         /* bytes of SHA-256 */
    LOGIN_FILE_MAX = 1 << 20,  /* longest file, */
    LOGIN_LINE_MAX = 4096,     /* and line */
    LOGIN_LINES_MAX = 4096,    /* most logins of a file, */
    LOGIN_PATTERNS_MAX = 4096, /* and patterns in all of it */
    LOGIN_TIME = 21            /* text of a time, with its end */
};

enum login_kind { LOGIN_BY_TOKEN, LOGIN_BY_CERTIFICATE };

struct login {
    const char *name; /* for the log and sentences; the list's */
    enum role role;
    unsigned line;
    uint8_t digest[LOGIN_DIGEST]; /* LOGIN_BY_TOKEN */
    struct patterns subjects;     /* LOGIN_BY_CERTIFICATE */
    struct patterns models, workers;
    uint64_t expires_s; /* Unix time; 0: never */
};

/* In memory of its own that no core dump has (secret.h). All zero: an empty one. */
struct login_list {
    struct login *logins;
    size_t count;
    size_t memory;   /* bytes of logins */
    char *text;      /* the file's, cut into words, */
    size_t room;     /* and bytes that it has */
    size_t patterns; /* in all of it */
};

/* Read the file, all of it or nothing. A file that others may write to is refused.
 * OPT_NOT_FOUND, OPT_INVALID_ARGUMENT, OPT_PERMISSION_DENIED, OPT_RESOURCE_EXHAUSTED,
 * with a sentence that begins with file and line, and quotes nothing secret. */
enum opt_status login_list_read(const char *path, enum login_kind kind,
                                struct login_list *out, struct opt_error *error);
/* The same of a text, which path names in sentences; it is copied. */
enum opt_status login_list_parse(const char *path, const char *text, size_t size,
                                 enum login_kind kind, struct login_list *out,
                                 struct opt_error *error);
void login_list_fini(struct login_list *list);

/* "2027-01-31T12:00:00Z", in seconds since 1970; false if it is no such time. */
bool login_time_read(const char *text, uint64_t *out);
void login_time_print(uint64_t seconds, char out[LOGIN_TIME]);

#endif
