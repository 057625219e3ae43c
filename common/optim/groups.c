/* groups — which options tensors have of their own, by their names. A specification's
 * groups are a list that copies of it share; who adds to it has one to himself. Any
 * thread.
 */
#include "common/optim/groups.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/optim/options.h"

struct list {
    _Atomic size_t references;
    size_t capacity;
    struct opt_group groups[];
};

static struct list *list_of(const struct opt_spec *spec)
{
    return spec->groups == NULL
               ? NULL
               : (struct list *)(void *)((char *)spec->groups -
                                         offsetof(struct list, groups));
}

void opt_spec_share(struct opt_spec *to, const struct opt_spec *from)
{
    struct list *list = list_of(from);
    *to = *from;
    if (list != NULL) {
        atomic_fetch_add_explicit(&list->references, 1, memory_order_relaxed);
    }
}

void opt_spec_fini(struct opt_spec *spec)
{
    struct list *list = list_of(spec);
    size_t count = spec->group_count;
    spec->groups = NULL;
    spec->group_count = 0;
    if (list == NULL || atomic_fetch_sub(&list->references, 1) > 1) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        free(list->groups[i].pattern);
    }
    free(list);
}

size_t opt_spec_bytes(const struct opt_spec *spec)
{
    const struct list *list = list_of(spec);
    size_t bytes = list == NULL ? 0 : sizeof *list;
    for (size_t i = 0; i < spec->group_count; i++) {
        bytes += sizeof spec->groups[i] + strlen(spec->groups[i].pattern) + 1;
    }
    return bytes;
}

/* See that one group more has room. */
static bool grow(struct opt_spec *spec)
{
    enum { FIRST = 8 };
    struct list *list = list_of(spec);
    if (list != NULL && spec->group_count < list->capacity) {
        return true;
    }
    size_t capacity = list == NULL ? FIRST : list->capacity * 2;
    struct list *larger = realloc(list, sizeof *list + capacity * sizeof *list->groups);
    if (larger == NULL) {
        return false;
    }
    if (list == NULL) {
        atomic_init(&larger->references, 1);
    }
    larger->capacity = capacity;
    spec->groups = larger->groups;
    return true;
}

static uint64_t hash_of(const char *pattern)
{
    return XXH3_64bits(pattern, strlen(pattern));
}

const struct opt_group *opt_group_find(const struct opt_spec *spec, const char *pattern)
{
    uint64_t hash = hash_of(pattern);
    for (size_t i = 0; i < spec->group_count; i++) {
        const struct opt_group *group = &spec->groups[i];
        if (group->hash == hash && strcmp(group->pattern, pattern) == 0) {
            return group;
        }
    }
    return NULL;
}

enum opt_status opt_group_add(struct opt_spec *spec, const char *pattern,
                              struct opt_group **out, struct opt_error *error)
{
    size_t size = strlen(pattern);
    enum opt_status status = opt_name_check(pattern, size, "tensor pattern", error);

    if (status != OPT_OK) {
        return status;
    }
    if (spec->group_count == OPT_GROUPS_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "more than %d groups of tensors",
                        (int)OPT_GROUPS_MAX);
    }
    if (opt_group_find(spec, pattern) != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "two groups have the pattern \"%.100s\"; give its options "
                        "together",
                        pattern);
    }
    char *copy = malloc(size + 1);
    if (copy == NULL || !grow(spec)) {
        free(copy);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for %zu groups", spec->group_count + 1);
    }
    memcpy(copy, pattern, size + 1);
    *out = &spec->groups[spec->group_count++];
    **out = (struct opt_group){ .pattern = copy, .hash = hash_of(pattern) };
    return OPT_OK;
}

/* ------------------------------------------------------------------ matching */

void opt_group_options(const struct opt_spec *spec, uint16_t group, size_t rank,
                       struct opt_tensor_options *out)
{
    const struct opt_options *options = &spec->options;

    *out = (struct opt_tensor_options){
        .weight_decay = options->weight_decay,
        .lr_scale = 1.0,
        .layerwise = options->layerwise != OPT_LAYERWISE_NONE &&
                     (double)rank >= options->layerwise_min_ndim,
    };
    if (group == OPT_GROUP_NONE) {
        return;
    }
    const struct opt_group *of = &spec->groups[group];
    if (of->has_weight_decay) {
        out->weight_decay = of->weight_decay;
    }
    if (of->has_lr_scale) {
        out->lr_scale = of->lr_scale;
    }
    out->layerwise = out->layerwise && !of->layerwise_none;
}

void opt_tensor_options_resolve(const struct opt_spec *spec, const char *name,
                                size_t rank, struct opt_tensor_options *out)
{
    size_t size = strlen(name), group = 0;
    uint64_t steps = 0;
    struct opt_glob glob;

    for (; group < spec->group_count; group++) {
        opt_glob_compile(&glob, spec->groups[group].pattern);
        if (opt_glob_matches(&glob, name, size, &steps)) {
            break;
        }
    }
    opt_group_options(
        spec, group < spec->group_count ? (uint16_t)group : OPT_GROUP_NONE, rank, out);
}

void opt_matching_begin(struct opt_matching *matching, const struct opt_spec *spec,
                        const struct opt_named *names, uint16_t *groups)
{
    matching->spec = spec;
    matching->names = names;
    matching->groups = groups;
    matching->group = 0;
    matching->name = 0;
    matching->hit = false;
    matching->compiled = false;
    matching->cleared = 0;
}

/* The next pattern, or the refusal of one that nothing matches. */
static enum opt_status end_group(struct opt_matching *matching, struct opt_error *error)
{
    const struct opt_group *group = &matching->spec->groups[matching->group];
    if (!matching->hit && !group->may_miss) {
        const char *nearest = opt_glob_nearest(&matching->glob, matching->names);
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "no tensor matches tensors(\"%.100s\"); one that is near is "
                        "\"%.100s\". A pattern that may match nothing says so: "
                        "tensors(\"%.40s\", missing=ok, ...)",
                        group->pattern, nearest, group->pattern);
    }
    matching->group++;
    matching->name = 0;
    matching->hit = false;
    matching->compiled = false;
    return OPT_OK;
}

static bool is_over(const struct opt_matching *matching)
{
    return matching->cleared == matching->names->count &&
           matching->group == matching->spec->group_count;
}

/* One name against one pattern; those that an earlier pattern has are of interest only
 * until the pattern is known to match something. */
static void match_one(struct opt_matching *matching, uint64_t *steps)
{
    const struct opt_named *names = matching->names;
    size_t i = matching->name++;
    bool taken = matching->groups[i] != OPT_GROUP_NONE;
    ++*steps;
    if (taken && matching->hit) {
        return;
    }
    size_t size;
    const char *name = names->name(names->of, i, &size);
    if (!opt_glob_matches(&matching->glob, name, size, steps)) {
        return;
    }
    matching->hit = true;
    if (!taken) {
        matching->groups[i] = (uint16_t)matching->group;
    }
}

enum opt_status opt_matching_go_on(struct opt_matching *matching, uint64_t most,
                                   bool *over, uint64_t *steps, struct opt_error *error)
{
    enum { COMPILING = 512 };
    enum opt_status status = OPT_OK;
    size_t count = matching->names->count;
    *steps = 0;
    while (matching->cleared < count && *steps < most) {
        matching->groups[matching->cleared++] = OPT_GROUP_NONE;
        ++*steps;
    }
    while (status == OPT_OK && *steps < most && !is_over(matching)) {
        if (!matching->compiled) {
            opt_glob_compile(&matching->glob,
                             matching->spec->groups[matching->group].pattern);
            matching->compiled = true;
            *steps += COMPILING;
        }
        if (matching->name < count) {
            match_one(matching, steps);
        } else {
            status = end_group(matching, error);
        }
    }
    *over = status == OPT_OK && is_over(matching);
    return status;
}
