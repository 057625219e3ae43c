/* recovered — see recovered.h. */
#include "server/recovered.h"

#include <inttypes.h>
#include <stdio.h>

#include "server/durable/durable.h"
#include "server/notify.h"

enum { TELL_MS = 5000, MORE_MS = 60000 };

static void on_wake(uv_async_t *wake)
{
    struct recovered *recovered = wake->data;
    recovered->on_over(recovered->context, &recovered->error);
    recovered_close(recovered);
}

/* Another minute is asked for, again and again, as long as the daemon lives. */
static void on_patience(uv_timer_t *patience)
{
    const struct recovered *recovered = patience->data;
    char state[128];
    snprintf(state, sizeof state,
             "STATUS=Recovering: %" PRIu32 " %% is done\nEXTEND_TIMEOUT_USEC=%d000",
             atomic_load(&recovered->durable->percent), (int)MORE_MS);
    notify_manager(state);
}

void recovered_watch(struct recovered *recovered, uv_loop_t *loop,
                     void (*on_over)(void *context, const struct opt_error *error),
                     void *context)
{
    recovered->on_over = on_over;
    recovered->context = context;
    recovered->wake.data = recovered;
    recovered->patience.data = recovered;
    recovered->open = uv_async_init(loop, &recovered->wake, on_wake) == 0;
    if (recovered->open) {
        (void)uv_timer_init(loop, &recovered->patience); /* it cannot fail */
    }
}

void recovered_await(struct recovered *recovered, const struct durable *durable)
{
    recovered->durable = durable;
    on_patience(&recovered->patience);
    (void)uv_timer_start(&recovered->patience, on_patience, TELL_MS, TELL_MS);
}

void recovered_close(struct recovered *recovered)
{
    if (recovered->open) {
        recovered->open = false;
        uv_close((uv_handle_t *)&recovered->wake, NULL);
        uv_close((uv_handle_t *)&recovered->patience, NULL);
    }
}

void recovered_tell(void *context, const struct opt_error *error)
{
    struct recovered *recovered = context;
    if (error != NULL) {
        recovered->error = *error;
    }
    uv_async_send(&recovered->wake);
}
