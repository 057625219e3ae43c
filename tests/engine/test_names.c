/* test_names — names that are not there: which one is near, and that asking costs
 * little however many and long they are.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"
#include "server/base/names.h"

enum { MANY = 4000 };

static void add(struct names *names, const char *name)
{
    cr_assert(names_add(names, name, (void *)(uintptr_t)1));
}

Test(names, say_which_is_nearest_within_a_few_bytes)
{
    static const struct {
        const char *asked, *nearest;
    } cases[] = {
        { "minst", "mnist" },
        { "mnist2", "mnist" },
        { "imagenet", "imagenet1k" },
        { "nist", "mnist" },
        { "x", NULL },
        { "cifar-100", "cifar-10" },
        { "cifar-1", "cifar-10" },
        { "transformers", NULL },
        { "", NULL },
    };
    struct names names = { 0 };
    size_t steps;
    cr_assert_null(names_nearest(&names, "mnist", &steps));
    add(&names, "mnist");
    add(&names, "imagenet1k");
    add(&names, "cifar-10");
    add(&names, "cifar-11");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *nearest = names_nearest(&names, cases[i].asked, &steps);
        if (cases[i].nearest != NULL) {
            cr_expect_str_eq(nearest, cases[i].nearest, "of %s", cases[i].asked);
        }
    }
    cr_assert_null(names_nearest(&names, "a name that is like none of them", &steps));
    names_fini(&names);
}

/* How many of so many long names are compared with another one: each comparison is a
 * bounded number of steps, so one question is. */
Test(names, compares_an_unknown_name_within_a_bound_however_many_there_are)
{
    struct names names = { 0 };
    char(*all)[OPT_NAME_MAX + 1] = calloc(MANY, sizeof *all);
    char asked[OPT_NAME_MAX + 1];
    cr_assert_not_null(all);
    memset(asked, 'a', OPT_NAME_MAX);
    asked[OPT_NAME_MAX] = '\0';
    for (int i = 0; i < MANY; i++) {
        memcpy(all[i], asked, sizeof asked);
        snprintf(all[i], 8, "%04d", i);
        all[i][4] = 'a';
        add(&names, all[i]);
    }
    size_t steps = 0;
    const char *nearest = names_nearest(&names, asked, &steps);
    cr_assert_not_null(nearest);
    cr_assert_leq(steps, 512 << 10);
    steps = 0;
    memset(asked, 'z', OPT_NAME_MAX);
    cr_assert_null(names_nearest(&names, asked, &steps));
    cr_assert_leq(steps, 512 << 10);
    free(all);
    names_fini(&names);
}
