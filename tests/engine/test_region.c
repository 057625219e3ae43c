/* region — files in memory, and versions of weights in them. */
#define _GNU_SOURCE /* F_GET_SEALS */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/base/memory.h"
#include "server/base/region.h"
#include "server/base/version.h"

static struct budget budget;

static struct region *make(enum region_kind kind, size_t size)
{
    struct region *region = NULL;
    struct opt_error error;
    cr_assert_eq(region_new(kind, size, &budget, &region, &error), OPT_OK, "%s",
                 error.text);
    return region;
}

static void set_up(void)
{
    budget_init(&budget, 1 << 20);
}

TestSuite(region, .init = set_up);

Test(region, weights_are_written_here_and_read_there)
{
    struct region *region = make(REGION_WEIGHTS, 8192);
    cr_assert_eq(budget_used(&budget), 8192u);
    const char *there = mmap(NULL, 8192, PROT_READ, MAP_SHARED, region_file(region), 0);
    cr_assert(there != MAP_FAILED);
    cr_assert_eq(there[5000], 0);
    region_base(region)[5000] = 7;
    cr_assert_eq(there[5000], 7);
    cr_assert(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, region_file(region),
                   0) == MAP_FAILED);
    region_unref(region_ref(region));
    region_unref(region);
    cr_assert_eq(there[5000], 7, "who has it mapped keeps it");
    cr_assert_eq(budget_used(&budget), 0u);
}

Test(region, gradients_are_written_there_and_read_here)
{
    struct region *region = make(REGION_GRADIENTS, 4096);
    char *there =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, region_file(region), 0);
    cr_assert(there != MAP_FAILED);
    there[9] = 3;
    cr_assert_eq(region_base(region)[9], 3);
    int seals = fcntl(region_file(region), F_GET_SEALS);
    cr_assert_eq(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
                 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    region_close_file(region);
    cr_assert_eq(region_file(region), -1);
    cr_assert_eq(region_base(region)[9], 3);
    region_unref(region);
}

/* Not even by the kernel on this process's behalf. */
Test(region, gradients_cannot_be_written_here)
{
    struct region *region = make(REGION_GRADIENTS, 4096);
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    cr_assert_geq(zeros, 0);
    cr_assert_eq(read(zeros, region_base(region), 1), -1);
    cr_assert_eq(errno, EFAULT);
    close(zeros);
    region_unref(region);
}

Test(region, keeps_to_the_budget_and_to_a_number_of_files)
{
    struct region *regions[REGION_FILES_MAX], *other = NULL;
    struct opt_error error;
    cr_assert_eq(region_new(REGION_WEIGHTS, 2 << 20, &budget, &other, &error),
                 OPT_RESOURCE_EXHAUSTED);
    cr_assert_not_null(strstr(error.text, "--memory"), "%s", error.text);
    for (size_t i = 0; i < REGION_FILES_MAX; i++) {
        regions[i] = make(REGION_GRADIENTS, 64);
    }
    cr_assert_eq(region_new(REGION_GRADIENTS, 64, &budget, &other, &error),
                 OPT_UNAVAILABLE);
    cr_assert_null(other);
    region_close_file(regions[0]);
    other = make(REGION_GRADIENTS, 64);
    region_unref(other);
    other = make(REGION_WEIGHTS, 64); /* is counted by itself */
    region_unref(other);
    for (size_t i = 0; i < REGION_FILES_MAX; i++) {
        region_unref(regions[i]);
    }
    cr_assert_eq(budget_used(&budget), 0u);
}

/* ---------------------------------------------------------------- versions in it */

enum { SHARDS = 3, PLANE = 320, PLANES = 2 };
static const size_t at[SHARDS] = { 0, 96, 256 };

static struct version_pool *share(struct region *region)
{
    struct version_pool *pool = version_pool_new(&budget);
    cr_assert(version_pool_share(pool, region, at, SHARDS, PLANE));
    cr_assert_eq(version_pool_region(pool), region);
    return pool;
}

Test(region, versions_lie_in_planes_like_the_model)
{
    struct region *region = make(REGION_WEIGHTS, PLANES * PLANE * sizeof(float));
    size_t used = budget_used(&budget);
    struct version_pool *pool = share(region);
    struct version *versions[SHARDS][PLANES];
    for (size_t s = 0; s < SHARDS; s++) {
        for (int p = 0; p < PLANES; p++) {
            struct version *version = version_new(pool, 64, s);
            uint64_t place = 1;
            cr_assert_eq(version_plane(version), p);
            cr_assert(
                version_place(version, version_values(version) + 16, region, &place));
            cr_assert_eq(place, ((size_t)p * PLANE + at[s] + 16) * sizeof(float));
            versions[s][p] = version;
        }
    }
    cr_assert_eq(budget_used(&budget), used, "it is paid for as a whole");
    struct version *beyond = version_new(pool, 64, 1);
    uint64_t place;
    cr_assert_eq(version_plane(beyond), -1);
    cr_assert(!version_place(beyond, version_values(beyond), region, &place));
    cr_assert_eq(budget_used(&budget), used + 256);
    version_values(versions[1][0])[3] = 5;
    version_free(versions[1][0]);
    versions[1][0] = version_new(pool, 64, SHARDS + 1); /* a view of shard 1 */
    cr_assert_eq(version_plane(versions[1][0]), 0);
    cr_assert_eq(version_values(versions[1][0])[3], 0, "zeros, as every new one");
    version_free(beyond);
    for (size_t s = 0; s < SHARDS; s++) {
        for (int p = 0; p < PLANES; p++) {
            version_free(versions[s][p]);
        }
    }
    version_pool_close(pool);
    region_unref(region);
    cr_assert_eq(budget_used(&budget), 0u);
}

Test(region, lives_as_long_as_a_version_in_it)
{
    struct region *region = make(REGION_WEIGHTS, PLANES * PLANE * sizeof(float));
    struct version_pool *pool = share(region);
    region_unref(region);
    struct version *version = version_new(pool, 64, 2);
    struct version *copies = version_new(pool, 64, SIZE_MAX);
    cr_assert_eq(version_plane(copies), -1, "rows are no shard");
    version_free(copies);
    version_values(version)[0] = 2;
    version_pool_close(pool);
    cr_assert_eq(version_values(version)[0], 2);
    version_unref(version);
    cr_assert_eq(budget_used(&budget), 0u);
}
