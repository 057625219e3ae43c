/* published — see published.h. */
#include "server/engine/published.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

#include "server/engine/memory.h"

struct version_pool {
    struct budget *budget;
    uv_mutex_t lock; /* guards returned, alive, closed */
    struct version *returned;
    size_t alive; /* versions of this pool that exist */
    bool closed;
};

struct version {
    _Atomic size_t references;
    float *values;
    size_t count;
    size_t number; /* of what this is a version: the engine's business */
    struct version_pool *pool;
    struct version *next; /* among the returned */
};

struct version_pool *version_pool_new(struct budget *budget)
{
    struct version_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return NULL;
    }
    if (uv_mutex_init(&pool->lock) != 0) {
        free(pool);
        return NULL;
    }
    pool->budget = budget;
    return pool;
}

static void pool_free(struct version_pool *pool)
{
    uv_mutex_destroy(&pool->lock);
    free(pool);
}

struct version *version_pool_returned(struct version_pool *pool)
{
    uv_mutex_lock(&pool->lock);
    struct version *returned = pool->returned;
    pool->returned = NULL;
    uv_mutex_unlock(&pool->lock);
    for (struct version *version = returned; version != NULL; version = version->next) {
        atomic_store_explicit(&version->references, 1, memory_order_relaxed);
    }
    return returned;
}

struct version *version_next(const struct version *version)
{
    return version->next;
}

void version_pool_close(struct version_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    for (struct version *version = version_pool_returned(pool); version != NULL;) {
        struct version *next = version->next;
        version_free(version);
        version = next;
    }
    uv_mutex_lock(&pool->lock);
    pool->closed = true;
    /* Those that came back in between. */
    struct version *late = pool->returned;
    pool->returned = NULL;
    bool empty = pool->alive == 0;
    uv_mutex_unlock(&pool->lock);
    if (empty) {
        pool_free(pool);
        return;
    }
    while (late != NULL) {
        struct version *next = late->next;
        version_free(late);
        late = next;
    }
}

size_t version_bytes(size_t count)
{
    return count * sizeof(float);
}

struct version *version_new_paid(struct version_pool *pool, size_t count, size_t number)
{
    struct version *version = calloc(1, sizeof *version);
    if (version == NULL) {
        return NULL;
    }
    version->values = memory_new(version_bytes(count));
    if (version->values == NULL) {
        free(version);
        return NULL;
    }
    atomic_init(&version->references, 1);
    version->count = count;
    version->number = number;
    version->pool = pool;
    uv_mutex_lock(&pool->lock);
    pool->alive++;
    uv_mutex_unlock(&pool->lock);
    return version;
}

struct version *version_new(struct version_pool *pool, size_t count, size_t number)
{
    if (!budget_take(pool->budget, version_bytes(count))) {
        return NULL;
    }
    struct version *version = version_new_paid(pool, count, number);
    if (version == NULL) {
        budget_give(pool->budget, version_bytes(count));
    }
    return version;
}

void version_free(struct version *version)
{
    if (version == NULL) {
        return;
    }
    struct version_pool *pool = version->pool;
    memory_free(version->values, version_bytes(version->count));
    budget_give(pool->budget, version_bytes(version->count));
    free(version);
    uv_mutex_lock(&pool->lock);
    pool->alive--;
    bool last = pool->closed && pool->alive == 0;
    uv_mutex_unlock(&pool->lock);
    if (last) {
        pool_free(pool);
    }
}

void version_unref(struct version *version)
{
    if (version == NULL ||
        atomic_fetch_sub_explicit(&version->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    struct version_pool *pool = version->pool;
    uv_mutex_lock(&pool->lock);
    bool closed = pool->closed;
    if (!closed) {
        version->next = pool->returned;
        pool->returned = version;
    }
    uv_mutex_unlock(&pool->lock);
    if (closed) {
        version_free(version);
    }
}

float *version_values(struct version *version)
{
    return version->values;
}

size_t version_number(const struct version *version)
{
    return version->number;
}

struct version *version_ref(struct version *version)
{
    atomic_fetch_add_explicit(&version->references, 1, memory_order_relaxed);
    return version;
}

bool version_held(const struct version *version)
{
    return atomic_load_explicit(&version->references, memory_order_acquire) > 1;
}
