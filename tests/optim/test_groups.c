/* test_groups — which names patterns match, what that costs, and that a pattern which
 * matches nothing is told.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/groups.h"
#include "common/optim/options.h"

static bool matches(const char *pattern, const char *name)
{
    static struct opt_glob glob;
    uint64_t steps = 0;
    opt_glob_compile(&glob, pattern);
    return opt_glob_matches(&glob, name, strlen(name), &steps);
}

Test(groups, match_as_in_a_shell)
{
    static const struct {
        const char *pattern, *name;
        bool match;
    } cases[] = {
        { "w", "w", true },
        { "w", "ww", false },
        { "w", "", false },
        { "*", "anything", true },
        { "?", "a", true },
        { "?", "ab", false },
        { "?", "\xc3\xa4", true },
        { "?", "\xe2\x82\xac", true },
        { "??", "\xc3\xa4", false },
        { "??", "\xc3\xa4\xf0\x9f\x98\x80", true },
        { "a*", "a", true },
        { "a*a", "a", false },
        { "a*a", "aa", true },
        { "*.bias", "fc.bias", true },
        { "*.bias", "fc.bias2", false },
        { "blocks.1.*", "blocks.11.w", false },
        { "*b?d*", "abcde", true },
        { "*b?d*", "abccde", false },
        { "*ab*ab*", "abab", true },
        { "*ab*ab*", "aab", false },
        { "?*?", "a", false },
        { "?*?", "ab", true },
        { "*?", "\xc3\xa4", true },
        { "*\xc3\xa4", "\xc3\xa4\xc3\xa4", true },
        { "**a**", "bab", true },
        { "a?c*e", "abcde", true },
        { "*aab", "aaab", true },
        { "*a*b*c*", "xxaxxbxxc", true },
        { "a*b*c", "abcbc", true },
        { "a*b*c", "acb", false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(matches(cases[i].pattern, cases[i].name), cases[i].match,
                     "\"%s\" and \"%s\"", cases[i].pattern, cases[i].name);
    }
}

/* The plain way, which takes long with many stars. */
static bool matches_slowly(const char *pattern, const char *name)
{
    if (*pattern == '\0') {
        return *name == '\0';
    }
    if (*pattern == '*') {
        return matches_slowly(pattern + 1, name) ||
               (*name != '\0' && matches_slowly(pattern, name + 1));
    }
    return *name != '\0' && (*pattern == '?' || *pattern == *name) &&
           matches_slowly(pattern + 1, name + 1);
}

Test(groups, match_as_the_plain_way_does)
{
    static const char letters[] = "ab*?";
    uint32_t random = 1;
    for (int i = 0; i < 200000; i++) {
        char pattern[9] = "", name[13] = "";
        for (size_t k = 0; k < sizeof pattern - 1; k++) {
            random = random * 1664525 + 1013904223;
            pattern[k] = letters[random >> 30];
        }
        for (size_t k = 0; k < 4 + (random >> 8) % 9; k++) {
            name[k] = "ab"[random >> (k + 9) & 1u];
        }
        pattern[random >> 20 & 7u] = '\0';
        cr_assert_eq(matches(pattern, name), matches_slowly(pattern, name),
                     "\"%s\" and \"%s\"", pattern, name);
    }
}

Test(groups, cost_no_more_with_many_stars)
{
    static struct opt_glob glob;
    char pattern[OPT_NAME_MAX + 1], name[OPT_NAME_MAX + 1];
    for (size_t i = 0; i < OPT_NAME_MAX; i++) {
        pattern[i] = i % 2 == 0 ? '*' : 'a';
        name[i] = 'a';
    }
    pattern[OPT_NAME_MAX - 2] = 'b';
    pattern[OPT_NAME_MAX] = name[OPT_NAME_MAX] = '\0';
    uint64_t steps = 0;
    opt_glob_compile(&glob, pattern);
    cr_assert_not(opt_glob_matches(&glob, name, OPT_NAME_MAX, &steps));
    cr_assert_leq(steps, 1 + OPT_NAME_MAX * OPT_GLOB_WORDS);
}

static const char *name_at(const void *of, size_t i, size_t *size)
{
    const char *const *names = of;
    *size = strlen(names[i]);
    return names[i];
}

static enum opt_status match(const char *expression, const char *const *names,
                             size_t count, uint16_t *groups, struct opt_error *error)
{
    struct opt_named named = { .name = name_at, .of = names, .count = count };
    struct opt_spec spec;
    struct opt_matching *matching = malloc(sizeof *matching);
    cr_assert_eq(opt_spec_parse(expression, &spec, error), OPT_OK, "%s", error->text);
    opt_matching_begin(matching, &spec, &named, groups);
    enum opt_status status = OPT_OK;
    bool over = false;
    while (status == OPT_OK && !over) {
        uint64_t steps;
        status = opt_matching_go_on(matching, 1, &over, &steps, error);
    }
    free(matching);
    opt_spec_fini(&spec);
    return status;
}

static const char *const names[] = { "blocks.0.norm.bias", "blocks.0.fc.weight",
                                     "blocks.1.fc.bias", "head" };
enum { NAMES = sizeof names / sizeof *names };

Test(groups, go_to_the_first_pattern_in_pieces_of_any_size)
{
    uint16_t groups[NAMES];
    struct opt_error error;
    cr_assert_eq(match("sgd + tensors(\"*bias\", lr_scale=2)"
                       " + tensors(\"blocks.0.*\", lr_scale=3)"
                       " + tensors(\"blocks.1.*\", lr_scale=4)",
                       names, NAMES, groups, &error),
                 OPT_OK);
    cr_expect_eq(groups[0], 0);
    cr_expect_eq(groups[1], 1);
    cr_expect_eq(groups[2], 0);
    cr_expect_eq(groups[3], OPT_GROUP_NONE);
}

Test(groups, refuse_a_pattern_that_matches_nothing_unless_it_says_so)
{
    uint16_t groups[NAMES];
    struct opt_error error;
    cr_assert_eq(
        match("sgd + tensors(\"*.bais\", lr_scale=2)", names, NAMES, groups, &error),
        OPT_INVALID_ARGUMENT);
    cr_expect(strstr(error.text, "\"*.bais\"") != NULL, "%s", error.text);
    cr_expect(strstr(error.text, "\"blocks.0.norm.bias\"") != NULL, "%s", error.text);
    cr_expect(strstr(error.text, "missing=ok") != NULL, "%s", error.text);
    cr_assert_eq(match("sgd + tensors(\"blcoks.1.*\", lr_scale=2)", names, NAMES,
                       groups, &error),
                 OPT_INVALID_ARGUMENT);
    cr_expect(strstr(error.text, "\"blocks.") != NULL, "%s", error.text);
    cr_assert_eq(match("sgd + tensors(\"*.bais\", lr_scale=2, missing=ok)", names,
                       NAMES, groups, &error),
                 OPT_OK);
}

Test(groups, of_a_model_of_24_blocks_fit)
{
    enum { BLOCKS = 24 };
    static char text[16384];
    struct opt_spec spec;
    struct opt_error error;
    size_t used = (size_t)snprintf(text, sizeof text, "adam(lr=1e-3) + decay(0.05)");
    for (int block = 0; block < BLOCKS; block++) {
        double scale = 1;
        for (int i = block; i < BLOCKS; i++) {
            scale *= 0.75;
        }
        used += (size_t)snprintf(
            text + used, sizeof text - used,
            " + tensors(\"blocks.%d.*bias\", weight_decay=0, lr_scale=%.4g)"
            " + tensors(\"blocks.%d.norm*\", weight_decay=0, lr_scale=%.4g)"
            " + tensors(\"blocks.%d.*\", lr_scale=%.4g)",
            block, scale, block, scale, block, scale);
    }
    cr_assert_eq(opt_spec_parse(text, &spec, &error), OPT_OK, "%s", error.text);
    cr_assert_eq(spec.group_count, 3 * BLOCKS);
    opt_spec_fini(&spec);
}

Test(groups, are_1024_at_most_and_fill_256_KiB)
{
    char *text = malloc(OPT_EXPRESSION_BYTES + 1);
    struct opt_spec spec;
    struct opt_error error;
    for (int count = OPT_GROUPS_MAX; count <= OPT_GROUPS_MAX + 1; count++) {
        size_t used = (size_t)sprintf(text, "sgd");
        for (int i = 0; i < count; i++) {
            used += (size_t)sprintf(text + used,
                                    " + tensors(\"*%0210d\", lr_scale=0.5)", i);
        }
        enum opt_status status = opt_spec_parse(text, &spec, &error);
        if (count == OPT_GROUPS_MAX) {
            cr_assert_eq(status, OPT_OK, "%s", error.text);
            cr_assert_eq(spec.group_count, OPT_GROUPS_MAX);
            cr_assert_leq(used, OPT_EXPRESSION_BYTES);
            opt_spec_fini(&spec);
        } else {
            cr_assert_eq(status, OPT_INVALID_ARGUMENT);
        }
    }
    free(text);
}
