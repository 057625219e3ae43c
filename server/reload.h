/* reload — the configuration is read again while the daemon runs.
 *
 * All of it is read and checked before any of it is used: what is wrong somewhere
 * changes nothing, and is said with file, line and key. What cannot change while the
 * daemon runs, and is another now, is named in a warning. Main thread.
 */
#ifndef OPTIMD_SERVER_RELOAD_H
#define OPTIMD_SERVER_RELOAD_H

#include "common/status.h"

struct access;
struct credentials;
struct engine;
struct settings;

struct reload {
    int argc; /* how the daemon was started; argv is main's */
    char **argv;
    struct settings *settings; /* in force */
    struct access *access;
    struct engine *engine;           /* NULL: it does not run yet */
    struct credentials *credentials; /* NULL: no TLS */
};

/* Do it. If it fails, the log has the sentence too. */
enum opt_status reload_now(struct reload *reload, struct opt_error *error);

#endif
