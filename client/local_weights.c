#include "client/local_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/kernels.h"
#include "common/optim/rule.h"

enum { ALIGNED_BYTES = 64, ALIGNED_FLOATS = ALIGNED_BYTES / sizeof(float) };

/* ------------------------------------------------------------------------- making */

/* The specification of a local step: Lookahead's part in it is the whole of what
 * happens here, its options come beside it. */
static enum opt_status read_specification(const char *specification,
                                          const struct optclient_local_options *options,
                                          struct opt_spec *out, struct opt_error *error)
{
    enum opt_status status = opt_spec_parse(specification, out, error);
    if (status != OPT_OK) {
        return status;
    }
    if (out->options.lookahead_k > 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the specification of local steps contains lookahead: how many "
                        "steps and what becomes of the momentum is said beside it, and "
                        "the share is the model's own learning rate");
    }
    if ((unsigned)options->momentum > OPTCLIENT_MOMENTUM_PULLBACK) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "momentum %d: expected OPTCLIENT_MOMENTUM_KEEP, _RESET or "
                        "_PULLBACK",
                        (int)options->momentum);
    }
    if (!(options->alpha >= 0 && options->alpha <= 1)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "alpha %g: expected 0 (for 0.5) to 1", options->alpha);
    }
    out->options.lookahead_momentum = (int)options->momentum;
    out->options.lookahead_alpha = options->alpha > 0 ? options->alpha : 0.5;
    return OPT_OK;
}
_Static_assert((int)OPTCLIENT_MOMENTUM_KEEP == OPT_KEEP &&
                   (int)OPTCLIENT_MOMENTUM_RESET == OPT_RESET &&
                   (int)OPTCLIENT_MOMENTUM_PULLBACK == OPT_PULLBACK,
               "the words of both sides have the same numbers");

/* Lay the tensors out in a plane. False if there cannot be so much memory. */
static bool lay_out(struct local_weights *fast, const uint64_t *elements)
{
    uint64_t floats = 0;
    for (size_t i = 0; i < fast->count; i++) {
        fast->offsets[i] = (size_t)floats;
        floats += (elements[i] + ALIGNED_FLOATS - 1) / ALIGNED_FLOATS * ALIGNED_FLOATS;
        if (floats > SIZE_MAX / sizeof(float) / PLANE_COUNT) {
            return false;
        }
    }
    fast->floats = (size_t)floats;
    return true;
}

static bool add_plane(struct local_weights *fast, size_t plane, float value)
{
    float *values = aligned_alloc(ALIGNED_BYTES, fast->floats * sizeof(float));
    if (values == NULL) {
        return false;
    }
    for (size_t i = 0; i < fast->floats; i++) {
        values[i] = value;
    }
    fast->planes[plane] = values;
    return true;
}

static bool add_planes(struct local_weights *fast)
{
    const struct opt_spec *spec = &fast->spec;
    bool ok = add_plane(fast, PLANE_WEIGHTS, 0) && add_plane(fast, PLANE_SLOW, 0) &&
              add_plane(fast, PLANE_DISPLACEMENT, 0);
    if (ok && opt_view_train_differs(spec)) {
        ok = add_plane(fast, PLANE_VIEW, 0);
    }
    if (ok && opt_lookahead_pulls_back(spec)) {
        ok = add_plane(fast, PLANE_SLOW_MOMENT, 0);
    }
    const char *names[OPT_SLOTS_MAX];
    size_t slots = opt_spec_slots(spec, names);
    for (size_t i = 0; ok && i < slots; i++) {
        bool of_weights;
        ok =
            add_plane(fast, PLANE_SLOTS + i, opt_spec_slot_start(spec, i, &of_weights));
    }
    return ok;
}

static void bind_tensor(struct local_weights *fast, size_t i, size_t elements)
{
    struct opt_tensor_memory *memory = &fast->memory[i];
    opt_tensor_options_resolve(&fast->spec, fast->tensors[i].name,
                               fast->tensors[i].rank, &fast->options[i]);
    fast->counters[i] = (struct opt_tensor_counters){ .mu_product = 1.0 };
    fast->gradients[i] = (struct opt_contribution){ .dtype = OPT_FP32, .factor = 1.0 };
    *memory = (struct opt_tensor_memory){
        .n = elements,
        .options = &fast->options[i],
        .counters = &fast->counters[i],
        .w = local_weights_values(fast, PLANE_WEIGHTS, i),
        .contribution_count = 1,
        .direction = local_weights_values(fast, PLANE_DISPLACEMENT, i),
    };
    for (size_t k = 0; k < OPT_SLOTS_MAX; k++) {
        memory->slots[k] =
            local_weights_values(fast, (enum local_plane)(PLANE_SLOTS + k), i);
    }
}

/* All memory. False if there is not enough; what there is is the struct's. */
static bool make_room(struct local_weights *fast, const uint64_t *elements)
{
    size_t count = fast->count, largest = 0;
    fast->memory = calloc(count, sizeof(*fast->memory));
    fast->options = calloc(count, sizeof(*fast->options));
    fast->counters = calloc(count, sizeof(*fast->counters));
    fast->gradients = calloc(count, sizeof(*fast->gradients));
    fast->offsets = calloc(count, sizeof(*fast->offsets));
    if (fast->memory == NULL || fast->options == NULL || fast->counters == NULL ||
        fast->gradients == NULL || fast->offsets == NULL || !lay_out(fast, elements) ||
        !add_planes(fast)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        bind_tensor(fast, i, (size_t)elements[i]);
        largest = elements[i] > largest ? (size_t)elements[i] : largest;
    }
    fast->scratch = malloc(opt_update_scratch(count, largest));
    return fast->scratch != NULL;
}

enum opt_status local_weights_new(const char *specification,
                                  const struct optclient_local_options *options,
                                  const struct optclient_tensor *tensors,
                                  const uint64_t *elements, size_t count,
                                  struct local_weights **out, struct opt_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (tensors[i].sparse != 0) {
            return opt_fail(error, OPT_UNIMPLEMENTED,
                            "tensor \"%.100s\" is sparse; local steps move all rows of "
                            "a tensor at once and need dense ones",
                            tensors[i].name);
        }
    }
    struct local_weights *fast = calloc(1, sizeof(*fast));
    if (fast == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for local steps");
    }
    enum opt_status status =
        read_specification(specification, options, &fast->spec, error);
    fast->count = count;
    fast->tensors = tensors;
    fast->steps = options->steps;
    if (status == OPT_OK && !make_room(fast, elements)) {
        status = opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                          "no memory for the weights and slots of local steps");
    }
    if (status != OPT_OK) {
        local_weights_free(fast);
        return status;
    }
    *out = fast;
    return OPT_OK;
}

void local_weights_free(struct local_weights *fast)
{
    if (fast == NULL) {
        return;
    }
    for (size_t i = 0; i < PLANE_COUNT; i++) {
        free(fast->planes[i]);
    }
    free(fast->memory);
    free(fast->options);
    free(fast->counters);
    free(fast->gradients);
    free(fast->offsets);
    free(fast->scratch);
    opt_spec_fini(&fast->spec);
    free(fast);
}

float *local_weights_values(const struct local_weights *fast, enum local_plane plane,
                            size_t tensor)
{
    float *values = fast->planes[plane];
    return values == NULL ? NULL : values + fast->offsets[tensor];
}

const float *local_weights_view(const struct local_weights *fast, size_t tensor)
{
    return local_weights_values(
        fast, fast->planes[PLANE_VIEW] != NULL ? PLANE_VIEW : PLANE_WEIGHTS, tensor);
}

/* ------------------------------------------------------------------------- stepping */

static void renew_view(struct local_weights *fast)
{
    if (fast->planes[PLANE_VIEW] != NULL) {
        opt_view_train(&fast->spec, fast->planes[PLANE_WEIGHTS],
                       &fast->planes[PLANE_SLOTS], fast->planes[PLANE_VIEW],
                       fast->floats);
    }
}

void local_weights_start(struct local_weights *fast)
{
    memcpy(fast->planes[PLANE_WEIGHTS], fast->planes[PLANE_SLOW],
           fast->floats * sizeof(float));
    renew_view(fast);
}

/* Which element of a gradient is NaN or infinite; n if none is. */
static size_t find_nonfinite(const float *values, size_t n)
{
    if (opt_kernels()->all_finite(OPT_FP32, values, n)) {
        return n;
    }
    size_t at = 0;
    while (at < n && isfinite(values[at])) {
        at++;
    }
    return at;
}

/* Note the gradients of a step. */
static enum opt_status take_gradients(struct local_weights *fast,
                                      const struct optclient_values *gradients,
                                      size_t count, struct opt_error *error)
{
    if (count == 0 || gradients == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "no gradients are named");
    }
    for (size_t i = 0; i < fast->count; i++) {
        fast->memory[i].contributions = NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const struct optclient_values *one = &gradients[i];
        if (one->tensor >= fast->count) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "gradients[%zu] is of tensor %zu; the model has 0 to %zu",
                            i, one->tensor, fast->count - 1);
        }
        const char *name = fast->tensors[one->tensor].name;
        if (one->values == NULL || one->rows != NULL || one->row_count > 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "gradients[%zu] (tensor \"%.100s\") %s", i, name,
                            one->values == NULL
                                ? "has no memory"
                                : "names rows, but the tensor is not sparse");
        }
        if (fast->memory[one->tensor].contributions != NULL) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "gradients[%zu] is of tensor \"%.100s\" once more", i,
                            name);
        }
        fast->gradients[one->tensor].values = one->values;
        fast->memory[one->tensor].contributions = &fast->gradients[one->tensor];
    }
    return OPT_OK;
}

/* The policy for NaN and infinity. *skip: no step, though nothing is wrong. */
static enum opt_status check_finite(const struct local_weights *fast, bool *skip,
                                    struct opt_error *error)
{
    *skip = false;
    for (size_t i = 0; i < fast->count && fast->spec.options.nonfinite != OPT_PROPAGATE;
         i++) {
        const struct opt_tensor_memory *memory = &fast->memory[i];
        if (memory->contributions == NULL) {
            continue;
        }
        const float *values = memory->contributions->values;
        size_t at = find_nonfinite(values, memory->n);
        if (at == memory->n) {
            continue;
        }
        if (fast->spec.options.nonfinite == OPT_SKIP) {
            *skip = true;
            return OPT_OK;
        }
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the gradient of tensor \"%.100s\" is %g at element %zu; "
                        "gradients must be finite unless the specification says "
                        "nonfinite(skip) or nonfinite(propagate)",
                        fast->tensors[i].name, (double)values[at], at);
    }
    return OPT_OK;
}

enum opt_status local_weights_step(struct local_weights *fast,
                                   const struct optclient_values *gradients,
                                   size_t count, bool *stepped, struct opt_error *error)
{
    bool skip;
    enum opt_status status = take_gradients(fast, gradients, count, error);
    if (status == OPT_OK) {
        status = check_finite(fast, &skip, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    /* The sum of one finite gradient is finite: the update cannot refuse it. */
    *stepped = !skip && opt_update_serial(&fast->spec, fast->steps + 1, fast->memory,
                                          fast->count, fast->scratch);
    if (*stepped) {
        fast->steps++;
        renew_view(fast);
    }
    return OPT_OK;
}

/* ------------------------------------------------------------------- synchronising */

/* slow - fast, but with the sign of a zero that makes w - alpha (slow - fast) the same
 * bits as w + alpha (fast - slow). */
void local_weights_depart(struct local_weights *fast)
{
    const float *slow = fast->planes[PLANE_SLOW], *w = fast->planes[PLANE_WEIGHTS];
    float *displacement = fast->planes[PLANE_DISPLACEMENT];
    for (size_t i = 0; i < fast->floats; i++) {
        displacement[i] = -(w[i] - slow[i]);
    }
}

void local_weights_take_slow(struct local_weights *fast, enum local_plane from)
{
    memcpy(fast->planes[PLANE_SLOW], fast->planes[from], fast->floats * sizeof(float));
}

void local_weights_arrive(struct local_weights *fast)
{
    int moment = opt_lookahead_moment_slot(&fast->spec);
    if (moment >= 0) {
        opt_lookahead_moment(&fast->spec.options,
                             fast->planes[PLANE_SLOTS + (size_t)moment],
                             fast->planes[PLANE_SLOW_MOMENT], fast->floats);
    }
    local_weights_start(fast);
}
