/* version — see version.h. */
#include "server/base/version.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "server/base/memory.h"
#include "server/base/region.h"

enum { PLANES_MAX = 8 };

struct version_pool {
    struct budget *budget;
    uv_mutex_t lock; /* guards returned, alive, closed */
    struct version *returned;
    size_t alive; /* versions of this pool that exist */
    bool closed;
    struct region *region; /* or NULL; set once */
    size_t *at;            /* of each shard in a plane */
    size_t shard_count, plane_floats;
    unsigned planes;
    uint8_t *taken; /* per shard a bit for each plane in use; under the lock */
    uint8_t *dirty; /* and for each that has been */
};

struct version {
    _Atomic size_t references;
    float *values;
    size_t count;
    size_t number; /* of what this is a version: the engine's business */
    int plane;     /* of the pool's region, or -1: values are its own */
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

bool version_pool_share(struct version_pool *pool, struct region *region,
                        const size_t *at, size_t shard_count, size_t plane_floats)
{
    pool->at = malloc(shard_count * sizeof *pool->at);
    pool->taken = calloc(2 * shard_count, sizeof *pool->taken);
    if (pool->at == NULL || pool->taken == NULL) {
        free(pool->at);
        free(pool->taken);
        pool->at = NULL;
        pool->taken = NULL;
        return false;
    }
    memcpy(pool->at, at, shard_count * sizeof *at);
    pool->dirty = pool->taken + shard_count;
    pool->shard_count = shard_count;
    pool->plane_floats = plane_floats;
    size_t planes = region_size(region) / sizeof(float) / plane_floats;
    pool->planes = planes < PLANES_MAX ? (unsigned)planes : PLANES_MAX;
    pool->region = region_ref(region);
    return true;
}

struct region *version_pool_region(const struct version_pool *pool)
{
    return pool->region;
}

size_t version_pool_alive(struct version_pool *pool)
{
    uv_mutex_lock(&pool->lock);
    size_t alive = pool->alive;
    uv_mutex_unlock(&pool->lock);
    return alive;
}

static void pool_free(struct version_pool *pool)
{
    region_unref(pool->region);
    free(pool->at);
    free(pool->taken);
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

/* What a version takes from the budget. */
static size_t version_bytes(size_t count)
{
    return count * sizeof(float);
}

/* The version is the pool's from now on. */
static struct version *begin(struct version *version, struct version_pool *pool,
                             size_t count, size_t number)
{
    atomic_init(&version->references, 1);
    version->count = count;
    version->number = number;
    version->pool = pool;
    uv_mutex_lock(&pool->lock);
    pool->alive++;
    uv_mutex_unlock(&pool->lock);
    return version;
}

/* The budget has been asked already. */
static struct version *new_paid(struct version_pool *pool, size_t count, size_t number)
{
    struct version *version = calloc(1, sizeof *version);
    if (version == NULL) {
        return NULL;
    }
    version->plane = -1;
    version->values = memory_new(version_bytes(count));
    if (version->values == NULL) {
        free(version);
        return NULL;
    }
    return begin(version, pool, count, number);
}

/* The lowest plane in which the shard has no version, now taken; -1: there is none. */
static int take_plane(struct version_pool *pool, size_t shard, bool *dirty)
{
    int found = -1;
    uv_mutex_lock(&pool->lock);
    for (unsigned i = 0; i < pool->planes && found < 0; i++) {
        uint8_t bit = (uint8_t)(1u << i);
        if ((pool->taken[shard] & bit) == 0) {
            found = (int)i;
            *dirty = (pool->dirty[shard] & bit) != 0;
            pool->taken[shard] |= bit;
            pool->dirty[shard] |= bit;
        }
    }
    uv_mutex_unlock(&pool->lock);
    return found;
}

static void give_plane(struct version_pool *pool, size_t shard, int plane)
{
    uv_mutex_lock(&pool->lock);
    pool->taken[shard] &= (uint8_t) ~(1u << (unsigned)plane);
    uv_mutex_unlock(&pool->lock);
}

/* A version in the region, which has been paid for as a whole. NULL: there is none, or
 * no room. */
static struct version *version_new_shared(struct version_pool *pool, size_t count,
                                          size_t number)
{
    if (pool->region == NULL || number == SIZE_MAX) {
        return NULL;
    }
    struct version *version = calloc(1, sizeof *version);
    if (version == NULL) {
        return NULL;
    }
    bool dirty = false;
    size_t shard = number % pool->shard_count;
    version->plane = take_plane(pool, shard, &dirty);
    if (version->plane < 0) {
        free(version);
        return NULL;
    }
    version->values = (float *)(void *)region_base(pool->region) +
                      (size_t)version->plane * pool->plane_floats + pool->at[shard];
    if (dirty) {
        memset(version->values, 0, version_bytes(count));
    }
    return begin(version, pool, count, number);
}

struct version *version_new(struct version_pool *pool, size_t count, size_t number)
{
    struct version *version = version_new_shared(pool, count, number);
    if (version != NULL) {
        return version;
    }
    if (!budget_take(pool->budget, version_bytes(count))) {
        return NULL;
    }
    version = new_paid(pool, count, number);
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
    if (version->plane >= 0) {
        give_plane(pool, version->number % pool->shard_count, version->plane);
    } else {
        memory_free(version->values, version_bytes(version->count));
        budget_give(pool->budget, version_bytes(version->count));
    }
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

int version_plane(const struct version *version)
{
    return version->plane;
}

bool version_place(const struct version *version, const float *values,
                   const struct region *region, uint64_t *place)
{
    if (version == NULL || version->plane < 0 || version->pool->region != region) {
        return false;
    }
    *place = (uint64_t)((const uint8_t *)(const void *)values - region_base(region));
    return true;
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
