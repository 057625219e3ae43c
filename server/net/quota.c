/* quota — see quota.h. */
#include "server/net/quota.h"

#include "server/net/counters.h"

bool quota_take(struct quota *quota, size_t bytes)
{
    size_t used = atomic_load(&quota->used);
    do {
        if (used > quota->limit || bytes > quota->limit - used) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&quota->used, &used, used + bytes));
    counter_add(COUNTER_INFLIGHT, bytes);
    return true;
}

void quota_force(struct quota *quota, size_t bytes)
{
    atomic_fetch_add(&quota->used, bytes);
    counter_add(COUNTER_INFLIGHT, bytes);
}

void quota_give(struct quota *quota, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    atomic_fetch_sub(&quota->used, bytes);
    counter_subtract(COUNTER_INFLIGHT, bytes);
    for (int i = 0; i < quota->loops; i++) {
        if (atomic_load(&quota->waiting[i]) &&
            atomic_exchange(&quota->waiting[i], false)) {
            uv_async_send(quota->wake[i]);
        }
    }
}

void quota_wait(struct quota *quota, int loop)
{
    atomic_store(&quota->waiting[loop], true);
}
