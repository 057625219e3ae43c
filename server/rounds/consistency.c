/* consistency — see consistency.h. */
#include "server/rounds/consistency.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/optim/update.h"

static const char *const modes[] = { "sync", "async", "bounded" };
static const char *const losses[] = { "shrink", "wait", "fail" };

static enum opt_status check_compensation(const struct opt_spec *spec,
                                          struct opt_error *error)
{
    return opt_view_train_differs(spec)
               ? opt_fail(
                     error, OPT_INVALID_ARGUMENT,
                     "delay_compensation needs a rule whose gradients are taken at the "
                     "weights themselves, not ahead of them")
               : OPT_OK;
}

enum opt_status consistency_check_tensor(const struct opt_consistency *consistency,
                                         const struct opt_tensor_entry *tensor,
                                         struct opt_error *error)
{
    return consistency->delay_compensation > 0 && tensor->sparse
               ? opt_fail(error, OPT_INVALID_ARGUMENT,
                          "tensor \"%s\" is sparse; delay_compensation is for dense "
                          "tensors only",
                          tensor->name)
               : OPT_OK;
}

enum opt_status consistency_check_atomic(const struct opt_spec *spec,
                                         struct opt_error *error)
{
    const struct opt_options *options = &spec->options;
    const char *why =
        options->clip == OPT_CLIP_GLOBAL_NORM
            ? "clip(global_norm) needs the norm of the whole gradient first"
        : options->nonfinite == OPT_SKIP
            ? "nonfinite(skip) cannot skip what has been applied"
        : options->aggregate == OPT_SUM && options->nonfinite != OPT_PROPAGATE
            ? "aggregate(sum) must look for an overflow in the whole gradient first"
            : NULL;
    if (why == NULL) {
        return OPT_OK;
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "atomic is SHARD, but %s; it is possible with atomic ROUND", why);
}

/* Rounds that close before everybody has pushed cannot begin before that. */
static enum opt_status check_shards(const struct opt_consistency *policy,
                                    const struct opt_spec *spec,
                                    struct opt_error *error)
{
    if (policy->samples > 0 || policy->backup > 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "atomic is SHARD and %s is given; who takes part in such a "
                        "round is known when it begins, not when it closes",
                        policy->samples > 0 ? "samples" : "backup");
    }
    return consistency_check_atomic(spec, error);
}

/* A field that only some modes know. */
struct field {
    const char *name;
    bool given;
    bool known[OPT_BOUNDED + 1]; /* by which modes */
    const char *home;            /* those, for people */
};

enum opt_status consistency_check(const struct opt_consistency *consistency,
                                  const struct opt_spec *spec, struct opt_error *error)
{
    const struct opt_consistency *c = consistency;
    const struct field fields[] = {
        { "samples", c->samples > 0, { [OPT_SYNC] = true }, "sync" },
        { "backup", c->backup > 0, { [OPT_SYNC] = true }, "sync" },
        { "atomic SHARD",
          c->atomic == OPT_ATOMIC_SHARD,
          { [OPT_SYNC] = true },
          "sync" },
        { "staleness", c->staleness > 0, { [OPT_BOUNDED] = true }, "bounded" },
        { "damping",
          c->damping,
          { [OPT_ASYNC] = true, [OPT_BOUNDED] = true },
          "async and bounded" },
        { "delay_compensation",
          c->delay_compensation > 0,
          { [OPT_ASYNC] = true, [OPT_BOUNDED] = true },
          "async and bounded" },
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].given && !fields[i].known[c->mode]) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s is given, but the mode is %s; it is for %s",
                            fields[i].name, modes[c->mode], fields[i].home);
        }
    }
    if (c->samples > 0 && c->backup > 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "samples is %" PRIu64 " and backup is %" PRIu32
                        "; a round closes by one of them",
                        c->samples, c->backup);
    }
    if (c->mode == OPT_BOUNDED && c->staleness == 0) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "the mode is bounded and staleness is 0; it must be at least 1, "
            "or nobody could push first");
    }
    if (c->atomic == OPT_ATOMIC_SHARD) {
        return check_shards(c, spec, error);
    }
    return c->delay_compensation > 0 ? check_compensation(spec, error) : OPT_OK;
}

bool consistency_differs(const struct opt_consistency *has,
                         const struct opt_consistency *asked, char *text,
                         size_t capacity)
{
    const struct {
        const char *name;
        uint64_t has, asked;
    } numbers[] = {
        { "min_workers", has->min_workers, asked->min_workers },
        { "samples", has->samples, asked->samples },
        { "backup", has->backup, asked->backup },
        { "staleness", has->staleness, asked->staleness },
        { "damping", has->damping, asked->damping },
    };
    if (has->mode != asked->mode) {
        snprintf(text, capacity, "its mode is %s, not %s", modes[has->mode],
                 modes[asked->mode]);
        return true;
    }
    bool was = has->atomic == OPT_ATOMIC_SHARD,
         wanted = asked->atomic == OPT_ATOMIC_SHARD;
    if (was != wanted) {
        snprintf(text, capacity, "its atomic is %s, not %s", was ? "SHARD" : "ROUND",
                 wanted ? "SHARD" : "ROUND");
        return true;
    }
    if (has->loss != asked->loss) {
        snprintf(text, capacity, "its policy for lost workers is %s, not %s",
                 losses[has->loss], losses[asked->loss]);
        return true;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i].has != numbers[i].asked) {
            snprintf(text, capacity, "its %s is %" PRIu64 ", not %" PRIu64,
                     numbers[i].name, numbers[i].has, numbers[i].asked);
            return true;
        }
    }
    /* Both are finite and at least 0, so they differ or are the same number. */
    if (has->delay_compensation < asked->delay_compensation ||
        has->delay_compensation > asked->delay_compensation) {
        snprintf(text, capacity, "its delay_compensation is %g, not %g",
                 has->delay_compensation, asked->delay_compensation);
        return true;
    }
    return false;
}
