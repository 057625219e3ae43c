/* version — versions and who holds them. */
#include <criterion/criterion.h>
#include <uv.h>

#include "server/base/memory.h"
#include "server/base/version.h"

Test(published, comes_back_when_the_last_reader_drops_it)
{
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct version_pool *pool = version_pool_new(&budget);
    struct version *version = version_new(pool, 100, 7);
    cr_assert(version != NULL && version_number(version) == 7);
    cr_assert(budget_used(&budget) == 400);
    cr_assert(!version_held(version));
    version_ref(version);
    version_ref(version);
    cr_assert(version_held(version));
    version_unref(version);
    version_unref(version);
    cr_assert(!version_held(version));
    cr_assert(version_pool_returned(pool) == NULL, "the owner still has it");
    version_unref(version);
    cr_assert(version_pool_returned(pool) == version);
    cr_assert(version_next(version) == NULL && !version_held(version));
    version_free(version);
    cr_assert(budget_used(&budget) == 0);
    version_pool_close(pool);
}

Test(published, refuses_what_the_budget_does_not_allow)
{
    struct budget budget;
    budget_init(&budget, 1000);
    struct version_pool *pool = version_pool_new(&budget);
    struct version *first = version_new(pool, 200, 0);
    cr_assert(first != NULL && version_new(pool, 51, 0) == NULL);
    cr_assert(budget_left(&budget) == 200);
    version_free(first);
    cr_assert(budget_used(&budget) == 0);
    version_pool_close(pool);
}

Test(published, outlives_its_model_while_it_is_read)
{
    struct budget budget;
    budget_init(&budget, 64 << 20);
    struct version_pool *pool = version_pool_new(&budget);
    struct version *read = version_new(pool, 1 << 20, 0);
    version_values(read)[5] = 3.0f;
    version_ref(read);
    version_unref(read); /* the model's */
    version_pool_close(pool);
    cr_assert(version_values(read)[5] == 3.0f);
    version_unref(read);
    cr_assert(budget_used(&budget) == 0);
    version_unref(NULL);
}

enum { READERS = 4, DROPS = 20000 };
struct readers {
    struct version *versions[DROPS];
};

static void drop_all(void *argument)
{
    struct readers *readers = argument;
    for (size_t i = 0; i < DROPS; i++) {
        version_unref(readers->versions[i]);
    }
}

Test(published, counts_readers_of_many_threads)
{
    static struct readers readers;
    struct budget budget;
    budget_init(&budget, 64 << 20);
    struct version_pool *pool = version_pool_new(&budget);
    for (size_t i = 0; i < DROPS; i++) {
        readers.versions[i] = version_new(pool, 16, i);
        for (size_t k = 1; k < READERS; k++) {
            version_ref(readers.versions[i]);
        }
    }
    uv_thread_t threads[READERS];
    for (size_t k = 0; k < READERS; k++) {
        cr_assert(uv_thread_create(&threads[k], drop_all, &readers) == 0);
    }
    for (size_t k = 0; k < READERS; k++) {
        uv_thread_join(&threads[k]);
    }
    size_t count = 0;
    for (struct version *version = version_pool_returned(pool); version != NULL;) {
        struct version *next = version_next(version);
        version_free(version);
        version = next;
        count++;
    }
    cr_assert(count == DROPS);
    cr_assert(budget_used(&budget) == 0);
    version_pool_close(pool);
}
