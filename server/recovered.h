/* recovered — how main learns that everything has come back from the data directory, or
 * that it cannot.
 *
 * The engine's thread tells it; main's loop is woken and calls on_over. Until then
 * whoever started the daemon is told how far it has come (notify.h), so that it does
 * not lose its patience. Main thread, but for recovered_tell.
 */
#ifndef OPTIMD_SERVER_RECOVERED_H
#define OPTIMD_SERVER_RECOVERED_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "common/status.h"

struct durable;

struct recovered {
    uv_async_t wake;
    uv_timer_t patience;
    bool open;
    struct opt_error error; /* OPT_OK: it has succeeded; written before the wake */
    const struct durable *durable;
    void (*on_over)(void *context, const struct opt_error *error);
    void *context;
};

/* on_over is told once: OPT_OK, or why not. */
void recovered_watch(struct recovered *recovered, uv_loop_t *loop,
                     void (*on_over)(void *context, const struct opt_error *error),
                     void *context);
/* It goes on there: tell whoever started the daemon. */
void recovered_await(struct recovered *recovered, const struct durable *durable);
/* Its handles go with the next turn of the loop. */
void recovered_close(struct recovered *recovered);

/* For durable_settings; context is the struct recovered. The engine's thread. */
void recovered_tell(void *context, const struct opt_error *error);

#endif
