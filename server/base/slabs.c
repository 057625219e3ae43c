/* slabs — see slabs.h. */
#include "server/base/slabs.h"

#include <assert.h>
#include <stdlib.h>

#include "server/base/memory.h"

enum {
    SPARES = 8,      /* kept at most, */
    SPARE_IDLE = 32, /* and until so many others have been taken */
    TOO_LARGE = 4,   /* times what is needed; */
    SMALL = 64 << 10 /* but not of so few bytes */
};

struct slabs {
    struct budget *budget;
    void *owner;
    bool closed;
    size_t count; /* slabs that there are */
    struct slab *reserved;
    struct slab *spares; /* without the reserved one; the last that came back first */
    size_t spare_count;
};

struct slabs *slabs_new(struct budget *budget, void *owner)
{
    struct slabs *slabs = calloc(1, sizeof *slabs);
    if (slabs != NULL) {
        slabs->budget = budget;
        slabs->owner = owner;
    }
    return slabs;
}

void *slabs_owner(const struct slabs *slabs)
{
    return slabs->owner;
}

static struct slab *make(struct slabs *slabs, size_t size)
{
    struct slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL) {
        return NULL;
    }
    slab->bytes = memory_new(size);
    if (slab->bytes == NULL) {
        free(slab);
        return NULL;
    }
    slab->of = slabs;
    slab->size = size;
    slabs->count++;
    return slab;
}

static struct slab *make_paid(struct slabs *slabs, size_t size)
{
    if (!budget_take(slabs->budget, size)) {
        return NULL;
    }
    struct slab *slab = make(slabs, size);
    if (slab == NULL) {
        budget_give(slabs->budget, size);
    }
    return slab;
}

static void destroy(struct slab *slab)
{
    slab->of->count--;
    budget_give(slab->of->budget, slab->size);
    memory_free(slab->bytes, slab->size);
    free(slab);
}

/* Free the spares that have been idle for so long. */
static void free_idle(struct slabs *slabs, unsigned idle)
{
    struct slab **link = &slabs->spares;
    while (*link != NULL) {
        struct slab *slab = *link;
        if (slab->idle < idle) {
            link = &slab->next;
            continue;
        }
        *link = slab->next;
        slabs->spare_count--;
        destroy(slab);
    }
}

void slabs_trim(struct slabs *slabs)
{
    if (slabs != NULL) {
        free_idle(slabs, 0);
    }
}

/* Free some bytes of the end, or all; true: all. */
static bool cut(struct slab *slab, size_t most, size_t *freed)
{
    size_t left = memory_cut(slab->bytes, slab->size, most);
    *freed = slab->size - left;
    budget_give(slab->of->budget, *freed);
    slab->size = left;
    if (left > 0) {
        return false;
    }
    slab->of->count--;
    free(slab);
    return true;
}

size_t slabs_cut(struct slabs *slabs, size_t most)
{
    size_t freed = 0;
    if (slabs == NULL) {
        return 0;
    }
    if (slabs->spares != NULL) {
        struct slab *next = slabs->spares->next;
        if (cut(slabs->spares, most, &freed)) {
            slabs->spares = next;
            slabs->spare_count--;
        }
    } else if (slabs->reserved != NULL && slabs->reserved->references == 0 &&
               cut(slabs->reserved, most, &freed)) {
        slabs->reserved = NULL;
    }
    return freed;
}

void slabs_close(struct slabs *slabs)
{
    if (slabs == NULL) {
        return;
    }
    slabs_trim(slabs);
    if (slabs->reserved != NULL && slabs->reserved->references == 0) {
        destroy(slabs->reserved);
    }
    slabs->reserved = NULL;
    slabs->owner = NULL;
    slabs->closed = true;
    if (slabs->count == 0) {
        free(slabs);
    }
}

bool slabs_reserve(struct slabs *slabs, size_t size)
{
    struct slab *before = slabs->reserved;
    if (size == 0 || (before != NULL && before->size >= size)) {
        return true;
    }
    slabs_trim(slabs);
    struct slab *slab = make_paid(slabs, size);
    if (slab == NULL) {
        return false;
    }
    if (before != NULL && before->references == 0) {
        destroy(before);
    }
    slabs->reserved = slab; /* the one before, if in use, is like all others now */
    return true;
}

static bool fits(const struct slab *slab, size_t size)
{
    return slab->size >= size && (slab->size <= SMALL || slab->size / TOO_LARGE < size);
}

/* A spare that fits. All that are left have been idle once more. */
static struct slab *take_spare(struct slabs *slabs, size_t size)
{
    struct slab *found = NULL, **link = &slabs->spares;
    while (*link != NULL) {
        struct slab *slab = *link;
        if (found == NULL && fits(slab, size)) {
            *link = slab->next;
            found = slab;
            continue;
        }
        slab->idle++;
        link = &slab->next;
    }
    slabs->spare_count -= found != NULL;
    free_idle(slabs, SPARE_IDLE);
    return found;
}

struct slab *slabs_take(struct slabs *slabs, size_t size)
{
    assert(!slabs->closed);
    struct slab *reserved = slabs->reserved;
    bool is_free = reserved != NULL && reserved->references == 0;
    struct slab *slab = take_spare(slabs, size);
    if (slab == NULL && is_free && fits(reserved, size)) {
        slab = reserved;
    }
    if (slab == NULL) {
        slab = make_paid(slabs, size);
    }
    if (slab == NULL && slabs->spares != NULL) {
        slabs_trim(slabs);
        slab = make_paid(slabs, size);
    }
    if (slab == NULL && is_free && reserved->size >= size) {
        slab = reserved;
    }
    if (slab != NULL) {
        slab->references = 1;
        slab->idle = 0;
        slab->next = NULL;
    }
    return slab;
}

struct slab *slab_ref(struct slab *slab)
{
    slab->references++;
    return slab;
}

void slab_unref(struct slab *slab)
{
    if (slab == NULL || --slab->references > 0) {
        return;
    }
    struct slabs *slabs = slab->of;
    if (slabs->closed) {
        destroy(slab);
        if (slabs->count == 0) {
            free(slabs);
        }
    } else if (slab == slabs->reserved) {
        return;
    } else if (slabs->spare_count < SPARES) {
        slab->next = slabs->spares;
        slabs->spares = slab;
        slabs->spare_count++;
    } else {
        destroy(slab);
    }
}
