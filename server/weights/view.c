/* view — see view.h. */
#include "server/weights/view.h"
#include "server/weights/shards.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/update.h"
#include "server/base/version.h"
#include "server/engine/errand.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/weights/segment.h"

enum {
    VIEW_WEIGHTS = -1,       /* no computed view: the weights as they are */
    VIEW_UNKNOWN = -2,       /* no such slot */
    FILL_ELEMENTS = 1 << 20, /* computed at a time: about a millisecond */
    ROW_ELEMENTS = 8,        /* to look for a piece's rows takes as long as so many, */
    PIECE_COST = 64,         /* to make or to fill a piece as many as this */
    MIRROR_COST = 4096,      /* to get memory for a shard of a view, */
    MIRRORS = 16,            /* of which so many get it at a time */
    PLANNED = 2048,          /* pieces that are made at a time, */
    FILLED = PLANNED * PIECE_COST /* or filled */
};

/* Which computed view a pull asks for. */
static int source_of(const struct model *model, const struct opt_pull *pull)
{
    switch (pull->view) {
    case OPT_VIEW_TRAIN:
        return opt_view_train_differs(&model->spec) ? MIRROR_TRAIN : VIEW_WEIGHTS;
    case OPT_VIEW_EVAL: {
        int slot = opt_view_eval_slot(&model->spec);
        return slot < 0 ? VIEW_WEIGHTS : slot;
    }
    case OPT_VIEW_SLOT:
        for (size_t i = 0; i < model->slot_count; i++) {
            if (strcmp(model->slot_names[i], pull->slot) == 0) {
                return (int)i;
            }
        }
        break;
    }
    return VIEW_UNKNOWN;
}

bool view_is_weights(const struct model *model, const struct opt_pull *pull)
{
    return source_of(model, pull) == VIEW_WEIGHTS;
}

static enum opt_status unknown_slot(const struct model *model, const char *slot,
                                    struct opt_error *error)
{
    char names[200];
    size_t used = 0;
    names[0] = '\0';
    for (size_t i = 0; i < model->slot_count && used < sizeof names; i++) {
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i == 0 ? "" : ", ", model->slot_names[i]);
    }
    return opt_fail_as(error, OPT_NOT_FOUND, OPT_DETAIL_NO_TENSOR,
                       "model \"%s\" has no slot \"%.100s\"; it has %s", model->name,
                       slot, model->slot_count == 0 ? "none" : names);
}

/* ---------------------------------------------------------------- planning */

/* The i-th segment that a pull means. */
static struct opt_segment segment_of(const struct opt_pull *pull, size_t i)
{
    if (pull->segment_count > 0) {
        return pull->segments[i];
    }
    return (struct opt_segment){ .tensor = (uint32_t)i };
}

/* Cut the rows of a segment into pieces that fit a frame. */
static void cut_rows(const struct model *model, struct opt_segment segment,
                     struct piece *out, size_t *count)
{
    size_t width = model->tensors[segment.tensor].width;
    size_t most = OPT_CHUNK_BYTES / sizeof(float) / width;
    most = most < OPT_ROWS_MAX ? most : OPT_ROWS_MAX;
    while (segment.row_count > 0) {
        size_t n = segment.row_count < most ? segment.row_count : most;
        if (out != NULL) {
            out[*count] = (struct piece){ .segment = { .tensor = segment.tensor,
                                                       .count = n * width,
                                                       .rows = segment.rows,
                                                       .row_count = n } };
        }
        ++*count;
        segment.rows += n;
        segment.row_count -= n;
    }
}

/* How many pieces the segments make, which are checked; OPT_SHARD elements of one are
 * at most one piece. */
static enum opt_status count_pieces(const struct model *model,
                                    const struct opt_pull *pull, size_t *count,
                                    struct opt_error *error)
{
    *count = pull->segment_count == 0 ? model->pieces : 0;
    for (size_t i = 0; i < pull->segment_count; i++) {
        struct opt_segment segment;
        enum opt_status status =
            segment_check(model, SEGMENT_PULL, &pull->segments[i], &segment, error);
        if (status != OPT_OK) {
            return status;
        }
        if (segment.row_count > 0) {
            cut_rows(model, segment, NULL, count);
        } else {
            *count += (size_t)((segment.offset + segment.count - 1) / OPT_SHARD -
                               segment.offset / OPT_SHARD + 1);
        }
    }
    return OPT_OK;
}

/* Cut segments, from *next on, at the borders of shards into pieces, from *count on,
 * for about most pieces. True: all are cut. */
static bool cut(const struct model *model, const struct opt_pull *pull,
                struct letter *letter, size_t *next, size_t *count, size_t most)
{
    size_t segments =
        pull->segment_count > 0 ? pull->segment_count : model->tensor_count;
    for (size_t end = *count + most; *next < segments && *count < end; ++*next) {
        struct opt_segment asked = segment_of(pull, *next), segment;
        struct opt_error error; /* there is none: they have been checked */
        if (segment_check(model, SEGMENT_PULL, &asked, &segment, &error) != OPT_OK) {
            continue;
        }
        if (segment.row_count > 0) {
            cut_rows(model, segment, letter->pieces, count);
            continue;
        }
        while (segment.count > 0) {
            size_t run;
            segment_shard(model, segment.tensor, segment.offset, segment.count, &run);
            letter->pieces[(*count)++] =
                (struct piece){ .segment = { .tensor = segment.tensor,
                                             .offset = segment.offset,
                                             .count = run } };
            segment.offset += run;
            segment.count -= run;
        }
    }
    return *next == segments;
}

static struct shard *shard_of(const struct model *model, const struct piece *piece)
{
    size_t run;
    return segment_shard(model, piece->segment.tensor, piece->segment.offset,
                         piece->segment.count, &run);
}

static bool has_rows(const struct piece *piece)
{
    return piece->segment.row_count > 0;
}

/* What an update writes of a tensor, weights and slots, it writes in the shards that it
 * opens; and it opens a shard for the sake of each tensor that it names. */
bool view_is_unchanged(const struct model *model, const struct opt_segment *segment,
                       uint64_t since)
{
    if (since == 0 || since < model->changed || since > model->step) {
        return false;
    }
    size_t run;
    const struct shard *shard =
        segment_shard(model, segment->tensor, segment->offset, segment->count, &run);
    return shard->changed <= since || model->tensors[segment->tensor].changed <= since;
}

/* Whether a piece needs no values: it has rows, which have them already, or it has gone
 * before the rest, or it is unchanged and nobody looks at them, not even to remember
 * what a worker sees. */
static bool is_settled(const struct model *model, const struct piece *piece)
{
    return has_rows(piece) || piece->gone ||
           (piece->unchanged && model->consistency.delay_compensation == 0);
}

static bool make_mirrors(struct model *model, int source)
{
    if (model->mirrors[source] == NULL) {
        model->mirrors[source] = calloc(model->shard_count, sizeof(struct mirror));
    }
    return model->mirrors[source] != NULL;
}

/* A version to compute the view into: the old one unless a reader holds it. */
static bool open_mirror(struct engine *engine, struct model *model,
                        const struct shard *shard, struct mirror *mirror)
{
    if (mirror->version != NULL && !version_held(mirror->version) &&
        !shard_outgrew(model, mirror->version)) {
        return true;
    }
    /* Which view it is makes no difference: a number beyond those of the shards. */
    size_t number = model->shard_count + (size_t)(shard - model->shards);
    struct version *fresh = version_new(model->pool, shard->n, number);
    if (fresh == NULL) {
        shards_trim(engine);
        fresh = version_new(model->pool, shard->n, number);
    }
    if (fresh == NULL) {
        return false;
    }
    version_unref(mirror->version);
    mirror->version = fresh;
    return true;
}

static enum opt_status no_memory(const struct engine *engine, const struct model *model,
                                 struct opt_error *error)
{
    return opt_fail_as(
        error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
        "a view of model \"%s\" does not fit the %zu bytes that are left of "
        "the %zu bytes that --memory allows",
        model->name, budget_left(&engine->budget), engine->budget.limit);
}

/* See that every shard of the pieces, from *next on, has memory for the view, held by
 * readers or not: they finish some time, so filling it can be late but cannot fail.
 * Ends when all have it, or most have got it. */
static bool reserve_mirrors(struct engine *engine, struct model *model,
                            const struct letter *letter, const struct opt_pull *pull,
                            int source, size_t *next, size_t most)
{
    if (!make_mirrors(model, source)) {
        return false;
    }
    bool all = pull->segment_count == 0;
    size_t count = all ? model->shard_count : letter->piece_count;
    size_t first = *next, opened = 0;
    for (; *next < count && opened < most; ++*next) {
        if (!all && has_rows(&letter->pieces[*next])) {
            continue;
        }
        const struct shard *shard =
            all ? &model->shards[*next] : shard_of(model, &letter->pieces[*next]);
        struct mirror *mirror = &model->mirrors[source][shard - model->shards];
        if (mirror->version == NULL) {
            if (!open_mirror(engine, model, shard, mirror)) {
                return false;
            }
            mirror->step = UINT64_MAX;
            opened++;
        }
    }
    work_done(engine, MIRROR_COST * (uint64_t)opened + (*next - first));
    return true;
}

/* Rows are copied, so that readers of a few do not hold whole shards: memory for all of
 * the letter's. */
static bool reserve_rows(struct engine *engine, struct model *model,
                         struct letter *letter, const struct opt_pull *pull)
{
    size_t elements = 0;
    for (size_t i = 0; pull->segment_count > 0 && i < letter->piece_count; i++) {
        if (has_rows(&letter->pieces[i])) {
            elements += (size_t)letter->pieces[i].segment.count;
        }
    }
    if (elements == 0) {
        return true;
    }
    shards_collect(model);
    struct version *copies = version_new(model->pool, elements, SIZE_MAX);
    if (copies == NULL) {
        shards_trim(engine);
        copies = version_new(model->pool, elements, SIZE_MAX);
    }
    if (copies == NULL) {
        return false;
    }
    const float *values = version_values(copies);
    for (size_t i = 0; i < letter->piece_count; i++) {
        struct piece *piece = &letter->pieces[i];
        if (has_rows(piece)) {
            piece->version = version_ref(copies);
            piece->values = values;
            values += piece->segment.count;
        }
    }
    version_unref(copies);
    return true;
}

/* Check a pull, and make room for its pieces. */
static enum opt_status prepare(const struct engine *engine, const struct model *model,
                               struct letter *letter, const struct opt_pull *pull,
                               struct opt_error *error)
{
    size_t count;
    enum opt_status status = count_pieces(model, pull, &count, error);
    if (status != OPT_OK) {
        return status;
    }
    if (!letter_pay(letter, count * sizeof(struct piece))) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM,
            "no room for %zu pieces of an answer at present: what peers have "
            "not read takes as much as the setting inflight allows",
            count);
    }
    return letter_pieces(letter, count) ? OPT_OK : no_memory(engine, model, error);
}

enum opt_status view_plan(struct engine *engine, struct model *model,
                          struct letter *letter, const struct opt_pull *pull,
                          bool pinned, struct opt_error *error)
{
    int source = source_of(model, pull);
    if (source == VIEW_UNKNOWN) {
        return unknown_slot(model, pull->slot, error);
    }
    if (!letter->planned) {
        enum opt_status status = prepare(engine, model, letter, pull, error);
        if (status != OPT_OK) {
            return status;
        }
        size_t next = 0, count = 0;
        cut(model, pull, letter, &next, &count, letter->piece_count);
        work_done(engine, PIECE_COST * (uint64_t)count);
    }
    letter->dtype = pull->dtype;
    if (!reserve_rows(engine, model, letter, pull)) {
        return no_memory(engine, model, error);
    }
    if (pinned && source >= 0) {
        model->mirror_pins[source]++;
        size_t next = 0;
        if (!reserve_mirrors(engine, model, letter, pull, source, &next, SIZE_MAX)) {
            model->mirror_pins[source]--;
            return no_memory(engine, model, error);
        }
    }
    return OPT_OK;
}

/* A plan of very many pieces, or of a view that is to be reserved for many shards. */
struct planning {
    struct errand errand;
    const struct opt_pull *pull; /* the letter's */
    size_t next, count;          /* segment, pieces that there are */
    bool cut;                    /* these are all */
    int source;                  /* whose mirrors are reserved; -1: none are */
    size_t mirror;               /* the next */
};

/* What cannot be reserved is said when the letter is served again. */
static bool reserve_on(struct engine *engine, struct model *model,
                       struct planning *planning)
{
    const struct opt_pull *pull = planning->pull;
    const struct letter *letter = planning->errand.letter;
    size_t count = pull->segment_count == 0 ? model->shard_count : letter->piece_count;
    return !reserve_mirrors(engine, model, letter, pull, planning->source,
                            &planning->mirror, MIRRORS) ||
           planning->mirror == count;
}

static bool plan_on(struct engine *engine, struct model *model, struct errand *errand)
{
    struct planning *planning = (struct planning *)(void *)errand;
    if (planning->cut) {
        return reserve_on(engine, model, planning);
    }
    size_t before = planning->count;
    planning->cut = cut(model, planning->pull, errand->letter, &planning->next,
                        &planning->count, PLANNED);
    work_done(engine, PIECE_COST * (uint64_t)(planning->count - before));
    return planning->cut && planning->source < 0;
}

static void plan_end(struct engine *engine, struct model *model, struct errand *errand)
{
    struct letter *letter = errand->letter;
    (void)model;
    free(errand);
    letter->planned = true;
    work_serve(engine, letter);
}

bool view_plan_ahead(struct engine *engine, struct model *model, struct letter *letter,
                     const struct opt_pull *pull, bool pinned)
{
    struct opt_error error;
    size_t count = 0;
    int source = source_of(model, pull);
    bool reserves = pinned && source >= 0;
    if (letter->planned || source == VIEW_UNKNOWN ||
        count_pieces(model, pull, &count, &error) != OPT_OK ||
        (count <= PLANNED && !(reserves && model->shard_count > MIRRORS))) {
        return false;
    }
    struct planning *planning = calloc(1, sizeof *planning);
    if (planning == NULL || prepare(engine, model, letter, pull, &error) != OPT_OK) {
        free(planning);
        return false;
    }
    planning->errand =
        (struct errand){ .go_on = plan_on, .end = plan_end, .letter = letter };
    planning->pull = pull;
    planning->source = reserves ? source : -1;
    errand_begin(engine, model, &planning->errand);
    return true;
}

void view_unpin(struct model *model, const struct opt_pull *pull)
{
    int source = source_of(model, pull);
    if (source >= 0) {
        model->mirror_pins[source]--;
    }
}

/* ---------------------------------------------------------------- filling */

static void point(const struct model *model, struct piece *piece,
                  const struct shard *shard, struct version *version)
{
    size_t flat = model->tensors[piece->segment.tensor].at +
                  (size_t)piece->segment.offset - shard->at;
    piece->values = version_values(version) + flat;
    piece->version = version_ref(version);
}

/* Copy the rows of a piece out of the weights, or of a slot. */
static void copy_rows(const struct model *model, const struct piece *piece, int source)
{
    const struct tensor *tensor = &model->tensors[piece->segment.tensor];
    float *out =
        (float *)(uintptr_t)piece->values; /* the letter's alone until it is sent */
    for (size_t i = 0; i < piece->segment.row_count; i++) {
        size_t offset = piece->segment.rows[i] * tensor->width;
        for (size_t at = 0, run; at < tensor->width; at += run) {
            const struct shard *shard = segment_shard(
                model, piece->segment.tensor, offset + at, tensor->width - at, &run);
            const float *from =
                source >= 0 ? shard->slots[source] : version_values(shard->current);
            memcpy(out, from + (tensor->at + offset + at - shard->at),
                   run * sizeof(float));
            out += run;
        }
    }
}

/* Copy all rows; false if there is more to do. The rules that sparse tensors can have
 * train at the weights themselves. */
static bool fill_rows(const struct model *model, struct letter *letter, int source)
{
    size_t done = 0;
    for (; letter->copied < letter->piece_count; letter->copied++) {
        const struct piece *piece = &letter->pieces[letter->copied];
        if (done >= FILL_ELEMENTS) {
            return false;
        }
        done += ROW_ELEMENTS;
        if (has_rows(piece)) {
            assert(source != MIRROR_TRAIN);
            copy_rows(model, piece, source);
            done += (size_t)piece->segment.count;
        }
    }
    return true;
}

static enum view_progress fill_weights(struct engine *engine, struct model *model,
                                       struct letter *letter, struct piece *piece,
                                       bool backed)
{
    struct shard *shard = shard_of(model, piece);
    point(model, piece, shard, shard->current);
    if (!shard_back(engine, model, shard) && backed) {
        letter_drop_pieces(letter);
        return VIEW_STALLED;
    }
    return VIEW_FILLED;
}

/* Compute the view of one shard from its weights and slots. */
static void compute(const struct model *model, const struct shard *shard,
                    struct mirror *mirror, int source)
{
    float *out = version_values(mirror->version);
    if (source == MIRROR_TRAIN) {
        opt_view_train(&model->spec, version_values(shard->current), shard->slots, out,
                       shard->n);
    } else {
        memcpy(out, shard->slots[source], shard->n * sizeof(float));
    }
    mirror->step = model->step;
}

static enum view_progress fill_computed(struct engine *engine, struct model *model,
                                        struct piece *piece, int source, uint64_t *cost)
{
    const struct shard *shard = shard_of(model, piece);
    struct mirror *mirror = &model->mirrors[source][shard - model->shards];
    if (mirror->version == NULL || mirror->step != model->step) {
        if (!open_mirror(engine, model, shard, mirror)) {
            return VIEW_STALLED;
        }
        compute(model, shard, mirror, source);
        *cost += shard->n;
    }
    point(model, piece, shard, mirror->version);
    return VIEW_FILLED;
}

/* Some pieces further. */
static enum view_progress fill_some(struct engine *engine, struct model *model,
                                    struct letter *letter, const struct opt_pull *pull,
                                    bool backed)
{
    int source = source_of(model, pull);
    if (source >= 0 && !make_mirrors(model, source)) {
        return VIEW_STALLED;
    }
    enum view_progress progress = VIEW_FILLED;
    uint64_t cost = 0;
    while (progress == VIEW_FILLED && letter->filled < letter->piece_count) {
        if (cost >= FILLED) {
            progress = VIEW_MORE;
            break;
        }
        struct piece *piece = &letter->pieces[letter->filled];
        cost += PIECE_COST;
        piece->unchanged = pull->since > 0 && !has_rows(piece) &&
                           view_is_unchanged(model, &piece->segment, pull->since);
        if (!is_settled(model, piece)) {
            progress = source < 0 ? fill_weights(engine, model, letter, piece, backed)
                                  : fill_computed(engine, model, piece, source, &cost);
        }
        letter->filled += progress == VIEW_FILLED;
    }
    work_done(engine, cost);
    return progress;
}

enum view_progress view_fill(struct engine *engine, struct model *model,
                             struct letter *letter, const struct opt_pull *pull,
                             bool backed)
{
    int source = source_of(model, pull);
    if (!fill_rows(model, letter, source)) {
        return VIEW_MORE;
    }
    if (source < 0) {
        return fill_some(engine, model, letter, pull, backed);
    }
    /* What is made here must not be freed to make room for more of it. */
    model->mirror_pins[source]++;
    enum view_progress progress = fill_some(engine, model, letter, pull, backed);
    model->mirror_pins[source]--;
    return progress;
}

void view_outdated(struct model *model)
{
    for (size_t i = 0; i < MIRROR_COUNT; i++) {
        if (i != MIRROR_TRAIN && model->mirror_pins[i] == 0) {
            shards_drop_view(model, i);
        }
    }
}
