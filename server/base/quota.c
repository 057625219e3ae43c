/* quota — see quota.h. */
#include "server/base/quota.h"

#include "server/base/counters.h"

void quota_init(struct quota *quota, size_t bytes, size_t least_guest, int loops)
{
    size_t guests = bytes - bytes / 4;
    guests = guests > least_guest ? guests : least_guest;
    quota->limit = bytes;
    quota->guest_limit = guests < bytes ? guests : bytes;
    quota->loops = loops;
}

static bool take(atomic_size_t *used, size_t bytes, size_t limit)
{
    size_t now = atomic_load(used);
    do {
        if (now > 0 && (now > limit || bytes > limit - now)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(used, &now, now + bytes));
    return true;
}

bool quota_take(struct quota *quota, size_t bytes, bool guest)
{
    if (guest && !take(&quota->guests, bytes, quota->guest_limit)) {
        return false;
    }
    if (!take(&quota->used, bytes, quota->limit)) {
        if (guest) {
            atomic_fetch_sub(&quota->guests, bytes);
        }
        return false;
    }
    counter_add(COUNTER_INFLIGHT, bytes);
    return true;
}

void quota_force(struct quota *quota, size_t bytes, bool guest)
{
    if (guest) {
        atomic_fetch_add(&quota->guests, bytes);
    }
    atomic_fetch_add(&quota->used, bytes);
    counter_add(COUNTER_INFLIGHT, bytes);
}

void quota_give(struct quota *quota, size_t bytes, bool guest)
{
    if (bytes == 0) {
        return;
    }
    if (guest) {
        atomic_fetch_sub(&quota->guests, bytes);
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
