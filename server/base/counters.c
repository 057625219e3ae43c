/* counters — see counters.h. */
#include "server/base/counters.h"

#include <stdatomic.h>
#include <stddef.h>

static const char *const names[] = {
    [COUNTER_CONNECTIONS] = "connections",
    [COUNTER_CONNECTIONS_OPENED] = "connections_opened",
    [COUNTER_CONNECTIONS_REFUSED] = "connections_refused",
    [COUNTER_HANDSHAKES] = "handshakes",
    [COUNTER_HANDSHAKES_FAILED] = "handshakes_failed",
    [COUNTER_LEASES_EXPIRED] = "leases_expired",
    [COUNTER_BYTES_RECEIVED] = "bytes_received",
    [COUNTER_BYTES_SENT] = "bytes_sent",
    [COUNTER_FRAMES_RECEIVED] = "frames_received",
    [COUNTER_FRAMES_SENT] = "frames_sent",
    [COUNTER_FRAMES_REFUSED] = "frames_refused",
    [COUNTER_READ_PAUSES] = "read_pauses",
    [COUNTER_DATA_MOVED] = "data_bytes_moved",
    [COUNTER_DATA_SHARED] = "data_bytes_shared",
    [COUNTER_DATA_NARROWED] = "data_bytes_narrowed",
    [COUNTER_VALUES_HELD] = "values_held",
    [COUNTER_RECEIVE_NS] = "receive_ns",
    [COUNTER_SEND_NS] = "send_ns",
    [COUNTER_LOOP_NS_MOST] = "loop_ns_most",
    [COUNTER_LOOP_COST_MOST] = "loop_cost_most",
    [COUNTER_INFLIGHT] = "inflight_bytes",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == COUNTER_COUNT,
               "every counter has a name");

static _Atomic uint64_t values[COUNTER_COUNT];

void counter_add(enum counter counter, uint64_t amount)
{
    atomic_fetch_add_explicit(&values[counter], amount, memory_order_relaxed);
}

void counter_subtract(enum counter counter, uint64_t amount)
{
    atomic_fetch_sub_explicit(&values[counter], amount, memory_order_relaxed);
}

void counter_most(enum counter counter, uint64_t value)
{
    uint64_t most = atomic_load_explicit(&values[counter], memory_order_relaxed);
    while (value > most && !atomic_compare_exchange_weak_explicit(
                               &values[counter], &most, value, memory_order_relaxed,
                               memory_order_relaxed)) {
    }
}

uint64_t counter_read(enum counter counter)
{
    return atomic_load_explicit(&values[counter], memory_order_relaxed);
}

void counters_read(struct opt_counter out[COUNTER_COUNT])
{
    for (size_t i = 0; i < COUNTER_COUNT; i++) {
        out[i] = (struct opt_counter){ .name = names[i],
                                       .value = counter_read((enum counter)i) };
    }
}
