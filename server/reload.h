/* reload — the configuration is read again while the daemon runs.
 *
 * All of it is read and checked before any of it is used: what is wrong somewhere
 * changes nothing, and is said with file, line and key. What cannot change while the
 * daemon runs, and is another now, is named in a warning. Main thread.
 */
#ifndef OPTIMD_SERVER_RELOAD_H
#define OPTIMD_SERVER_RELOAD_H

#include <stdbool.h>
#include <uv.h>

#include "common/status.h"
#include "server/base/letter.h"

struct access;
struct credentials;
struct engine;
struct settings;

enum { RELOAD_TEXT = 512 };

struct reload {
    int argc; /* how the daemon was started; argv is main's */
    char **argv;
    struct settings *settings; /* in force */
    struct access *access;
    struct engine *engine;           /* NULL: it does not run yet */
    struct credentials *credentials; /* NULL: no TLS */
    char unchanged[RELOAD_TEXT];     /* by the last one: settings that cannot change */

    bool is_made; /* reload_open was called */
    uv_async_t wake;
    uv_mutex_t lock; /* guards what follows */
    bool open;
    struct letters asked; /* who wait for it to be done */
};

/* From now on peers can ask for it too. OPT_RESOURCE_EXHAUSTED. */
enum opt_status reload_open(struct reload *reload, uv_loop_t *loop,
                            struct opt_error *error);
/* Whoever waits is answered, and nobody can ask any more. The loop runs once more. The
 * engine runs still. */
void reload_close(struct reload *reload);
/* The loop has run: the rest. */
void reload_fini(struct reload *reload);

/* What engine_settings.reload asks for; context: the struct. Any thread. */
bool reload_ask(void *context, struct letter *letter);

/* Do it. If it fails, the log has the sentence too. */
enum opt_status reload_now(struct reload *reload, struct opt_error *error);

#endif
