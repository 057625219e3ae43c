/* region — see region.h. */
#define _GNU_SOURCE /* memfd_create, F_ADD_SEALS */
#include "server/base/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/base/memory.h"

struct region {
    _Atomic size_t references;
    uint8_t *base;
    size_t size;
    enum region_kind kind;
    int file;
    struct budget *budget;
};

static atomic_int files[2]; /* open, of each kind */

static void close_file(struct region *region)
{
    if (region->file >= 0) {
        close(region->file);
        region->file = -1;
        atomic_fetch_sub(&files[region->kind], 1);
    }
}

static bool open_file(struct region *region)
{
    atomic_int *count = &files[region->kind];
    if (atomic_fetch_add(count, 1) >= REGION_FILES_MAX) {
        atomic_fetch_sub(count, 1);
        errno = EMFILE;
        return false;
    }
    region->file = memfd_create("optimd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (region->file < 0) {
        atomic_fetch_sub(count, 1);
        return false;
    }
    return true;
}

/* Give the file its size, map it, and seal it: what is mapped for writing before stays
 * writable, what is mapped later does not become so. */
static bool map(struct region *region)
{
    bool writes = region->kind == REGION_WEIGHTS;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (ftruncate(region->file, (off_t)region->size) != 0) {
        return false;
    }
    void *base = mmap(NULL, region->size, writes ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED | MAP_NORESERVE, region->file, 0);
    if (base == MAP_FAILED) {
        return false;
    }
    region->base = base;
    (void)madvise(base, region->size, MADV_HUGEPAGE); /* where the system has it */
    return fcntl(region->file, F_ADD_SEALS,
                 writes ? seals | F_SEAL_FUTURE_WRITE : seals) == 0;
}

static void region_free(struct region *region)
{
    if (region->base != NULL) {
        munmap(region->base, region->size);
    }
    close_file(region);
    budget_give(region->budget, region->size);
    free(region);
}

enum opt_status region_new(enum region_kind kind, size_t size, struct budget *budget,
                           struct region **out, struct opt_error *error)
{
    const char *what = kind == REGION_WEIGHTS ? "weights" : "gradients";
    if (!budget_take(budget, size)) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "%s to share take %zu bytes, but %zu of the %zu bytes that "
                           "--memory allows are left",
                           what, size, budget_left(budget), budget->limit);
    }
    struct region *region = malloc(sizeof *region);
    if (region == NULL) {
        budget_give(budget, size);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory to share %s", what);
    }
    *region =
        (struct region){ .size = size, .kind = kind, .file = -1, .budget = budget };
    atomic_init(&region->references, 1);
    if (!open_file(region) || !map(region)) {
        int code = errno;
        bool passing = kind == REGION_GRADIENTS && code == EMFILE;
        region_free(region);
        return opt_fail_as(error, passing ? OPT_UNAVAILABLE : OPT_RESOURCE_EXHAUSTED,
                           passing ? OPT_DETAIL_NO_ROOM : OPT_DETAIL_NO_MEMORY,
                           "cannot make a file in memory to share %s: %s", what,
                           strerror(code));
    }
    *out = region;
    return OPT_OK;
}

struct region *region_ref(struct region *region)
{
    atomic_fetch_add_explicit(&region->references, 1, memory_order_relaxed);
    return region;
}

void region_unref(struct region *region)
{
    if (region != NULL &&
        atomic_fetch_sub_explicit(&region->references, 1, memory_order_acq_rel) == 1) {
        region_free(region);
    }
}

uint8_t *region_base(const struct region *region)
{
    return region->base;
}

size_t region_size(const struct region *region)
{
    return region->size;
}

int region_file(const struct region *region)
{
    return region->file;
}

void region_close_file(struct region *region)
{
    close_file(region);
}
