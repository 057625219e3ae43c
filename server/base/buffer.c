/* buffer — see buffer.h. One list of kept buffers under one lock: it is passed
 * once for each frame of at least 128 KiB, so there is nothing to gain from more. */
#include "server/base/buffer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

#include "server/base/memory.h"

enum {
    ALIGNMENT = 64,
    LARGE = 128 << 10, /* from here on kept, and mapped by memory_new in whole */
    PAGE = 4 << 10,    /* pages */
    KEEP_DEFAULT = 256 << 20,
    TRIM_AGE = 1,           /* calls of buffer_trim that a buffer survives, */
    TRIM_AGE_PROMISED = 24, /* and if it is promised */
    TRIM_BYTES = 256 << 20  /* returned by one call, about: a loop waits for it */
};

/* Stands in the first bytes of a kept buffer. */
struct kept {
    struct kept *next;
    size_t capacity;
    unsigned age; /* calls of buffer_trim it has survived */
};

static uv_once_t once = UV_ONCE_INIT;
static uv_mutex_t lock; /* guards what follows */
static struct kept *first;
static size_t kept_bytes;
static size_t used_bytes;           /* of large ones */
static size_t limit = KEEP_DEFAULT; /* of both, beside what is promised */
static size_t promised;

static void initialise(void)
{
    if (uv_mutex_init(&lock) != 0) {
        abort();
    }
}

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* Bytes that may be kept now: with those in use no more than the limit and the
 * promises. Under the lock. */
static size_t most_kept(void)
{
    size_t all = limit + promised;
    return used_bytes < all ? all - used_bytes : 0;
}

/* Those that must not be kept any more. Under the lock. */
static struct kept *take_surplus(void)
{
    struct kept *surplus = NULL;
    while (first != NULL && kept_bytes > most_kept()) {
        struct kept *kept = first;
        first = kept->next;
        kept_bytes -= kept->capacity;
        kept->next = surplus;
        surplus = kept;
    }
    return surplus;
}

static void unmap_all(struct kept *list)
{
    while (list != NULL) {
        struct kept *next = list->next;
        memory_free(list, list->capacity);
        list = next;
    }
}

/* The smallest kept buffer that is large enough and not more than twice as large. */
static struct kept *find(size_t capacity)
{
    struct kept **best = NULL;
    for (struct kept **at = &first; *at != NULL; at = &(*at)->next) {
        size_t has = (*at)->capacity;
        if (has >= capacity && has / 2 <= capacity &&
            (best == NULL || has < (*best)->capacity)) {
            best = at;
            if (has == capacity) {
                break;
            }
        }
    }
    if (best == NULL) {
        return NULL;
    }
    struct kept *found = *best;
    *best = found->next;
    kept_bytes -= found->capacity;
    return found;
}

size_t buffer_capacity(size_t size)
{
    size_t rounded = round_up(size, ALIGNMENT);
    return rounded < LARGE ? rounded : round_up(size, PAGE);
}

void *buffer_take(size_t size, size_t *capacity)
{
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size_t rounded = buffer_capacity(size);
    if (rounded < LARGE) {
        void *memory = aligned_alloc(ALIGNMENT, rounded);
        if (memory != NULL) {
            *capacity = rounded;
        }
        return memory;
    }
    uv_once(&once, initialise);
    uv_mutex_lock(&lock);
    struct kept *found = find(rounded);
    size_t taken = found != NULL ? found->capacity : rounded;
    used_bytes += taken;
    struct kept *surplus = take_surplus();
    uv_mutex_unlock(&lock);
    unmap_all(surplus);
    void *memory = found != NULL ? found : memory_new(rounded);
    if (memory != NULL) {
        *capacity = taken;
        return memory;
    }
    uv_mutex_lock(&lock);
    used_bytes -= taken;
    uv_mutex_unlock(&lock);
    return NULL;
}

void buffer_give(void *memory, size_t capacity)
{
    if (memory == NULL) {
        return;
    }
    if (capacity < LARGE) {
        free(memory);
        return;
    }
    uv_once(&once, initialise);
    uv_mutex_lock(&lock);
    used_bytes -= capacity;
    bool keep = kept_bytes + capacity <= most_kept();
    if (keep) {
        struct kept *kept = memory;
        *kept = (struct kept){ .next = first, .capacity = capacity };
        first = kept;
        kept_bytes += capacity;
    }
    uv_mutex_unlock(&lock);
    if (!keep) {
        memory_free(memory, capacity);
    }
}

void buffer_trim(void)
{
    uv_once(&once, initialise);
    struct kept *old = NULL;
    size_t returned = 0;
    uv_mutex_lock(&lock);
    for (struct kept **at = &first; *at != NULL;) {
        struct kept *kept = *at;
        unsigned age = kept_bytes <= promised ? TRIM_AGE_PROMISED : TRIM_AGE;
        if (kept->age++ < age || returned >= TRIM_BYTES) {
            at = &kept->next;
            continue;
        }
        *at = kept->next;
        kept_bytes -= kept->capacity;
        returned += kept->capacity;
        kept->next = old;
        old = kept;
    }
    uv_mutex_unlock(&lock);
    unmap_all(old);
}

void buffer_keep(size_t bytes)
{
    uv_once(&once, initialise);
    uv_mutex_lock(&lock);
    limit = bytes;
    struct kept *surplus = take_surplus();
    uv_mutex_unlock(&lock);
    unmap_all(surplus);
}

void buffer_promise(size_t before, size_t now)
{
    uv_once(&once, initialise);
    uv_mutex_lock(&lock);
    promised = promised - before + now;
    uv_mutex_unlock(&lock);
}

size_t buffer_kept(void)
{
    uv_once(&once, initialise);
    uv_mutex_lock(&lock);
    size_t bytes = kept_bytes;
    uv_mutex_unlock(&lock);
    return bytes;
}
