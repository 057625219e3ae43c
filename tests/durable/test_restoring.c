/* restoring — what another engine recovers of a copy of the data directory, taken while
 * the first one lives, is what that one has: models, all that is remembered of their
 * workers' pushes, and the workers' lives.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "server/base/version.h"
#include "server/durable/durable.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/store/data_dir.h"
#include "server/store/journal_file.h"
#include "server/store/record.h"
#include "server/workers/worker.h"
#include "tests/support/engine_harness.h"
#include "tests/support/files.h"

enum { ELEMENTS = 20000, ROWS = 9, WIDTH = 4, WORKERS = 3, MOMENTS = 6 };
static const uint64_t shape_dense[] = { ELEMENTS }, shape_rows[] = { ROWS, WIDTH };
static const struct opt_tensor_entry tensors[] = {
    { .name = "dense", .shape = shape_dense, .rank = 1, .elements = ELEMENTS },
    { .name = "rows",
      .shape = shape_rows,
      .rank = 2,
      .elements = ROWS * WIDTH,
      .sparse = true },
};

/* ---------------------------------------------------------------- an engine */

struct side {
    struct data_dir dir;
    struct durable *durable;
    struct harness harness;
    uv_sem_t recovered;
    struct opt_error error;
};

static void on_recovered(void *context, const struct opt_error *error)
{
    struct side *side = context;
    side->error = error != NULL ? *error : (struct opt_error){ .status = OPT_OK };
    uv_sem_post(&side->recovered);
}

static void side_open(struct side *side, const char *path)
{
    struct opt_error error;
    cr_assert_eq(data_dir_open(path, &side->dir, &error), OPT_OK, "%s", error.text);
    struct durable_settings settings = {
        .dir = &side->dir,
        .durability = OPT_DURABILITY_ALWAYS,
        .interval_ms = 1000,
        .queue_bytes = 64 << 20,
        .recovered = on_recovered,
        .context = side,
    };
    cr_assert_eq(uv_sem_init(&side->recovered, 0), 0);
    cr_assert_eq(durable_open(&settings, &side->durable, &error), OPT_OK, "%s",
                 error.text);
    struct engine_settings engine = harness_settings();
    engine.durable = side->durable;
    engine.recorder = &side->durable->recorder;
    engine.durability = settings.durability;
    engine.grace_ms = 600000;
    harness_open(&side->harness, engine);
    uv_sem_wait(&side->recovered);
    cr_assert_eq(side->error.status, OPT_OK, "%s", side->error.text);
}

static void side_close(struct side *side)
{
    harness_close(&side->harness);
    durable_close(side->durable);
    data_dir_close(&side->dir);
    uv_sem_destroy(&side->recovered);
}

/* ---------------------------------------------------------------- what they do */

struct scene {
    struct side side;
    struct caller callers[WORKERS];
    uint64_t sequence[WORKERS];
    uint32_t model, other;
    unsigned saved, moment;
    uint64_t gap; /* records that are missing at the end */
};

static const char *const names[WORKERS] = { "a", "b", "c" };

static struct letter *push_of(struct scene *s, size_t worker, uint32_t model,
                              unsigned round, bool wrong)
{
    static const uint32_t rows[] = { 5, 1, 5 };
    static float values[ELEMENTS + 3 * WIDTH];
    const struct opt_segment segments[] = {
        { .tensor = 0 }, { .tensor = 1, .rows = rows, .row_count = 3 }
    };
    for (size_t i = 0; i < ELEMENTS + 3 * WIDTH; i++) {
        values[i] = (float)((i * 31 + round * 17 + worker * 7) % 97) / 100 - 0.4f;
    }
    values[7] = wrong ? NAN : values[7];
    struct letter *letter =
        push_letter(&s->callers[worker], model, ++s->sequence[worker], OPT_FP32,
                    segments, 2, values, sizeof values);
    letter_send(&s->callers[worker], letter);
    return letter;
}

/* All but so many push to the model; one of them something wrong first. */
static void round_of(struct scene *s, uint32_t model, unsigned round, size_t without)
{
    struct letter *letters[WORKERS];
    if (round % 3 == 1) {
        harness_free(letter_await(&s->side.harness, push_of(s, 0, model, round, true)));
    }
    for (size_t i = 0; i + without < WORKERS; i++) {
        letters[i] = push_of(s, i, model, round, false);
    }
    for (size_t i = 0; i + without < WORKERS; i++) {
        letters[i] = letter_await(&s->side.harness, letters[i]);
        cr_assert_eq(reply_status(letters[i]), OPT_OK, "%s", reply_text(letters[i]));
        harness_free(letters[i]);
    }
}

static void ask(struct scene *s, size_t worker, struct letter *letter)
{
    letter = letter_ask(&s->callers[worker], letter);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
}

static void set(struct scene *s, const char *model, const char *change, uint64_t step)
{
    struct letter *letter = letter_start(&s->callers[0], OPT_MESSAGE_SET);
    letter->request.body.set =
        (struct opt_set){ .model = model, .change = change, .at_step = step };
    ask(s, 0, letter);
}

static void meet(struct scene *s)
{
    struct letter *letters[WORKERS];
    for (size_t i = 0; i < WORKERS; i++) {
        letters[i] = letter_start(&s->callers[i], OPT_MESSAGE_BARRIER);
        letters[i]->request.body.barrier =
            (struct opt_barrier){ .model = s->model, .sequence = 3 };
        letter_send(&s->callers[i], letters[i]);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        harness_free(letter_await(&s->side.harness, letters[i]));
    }
}

static void begin(struct scene *s, const char *path)
{
    static float start[ELEMENTS + ROWS * WIDTH];
    side_open(&s->side, path);
    for (size_t i = 0; i < ELEMENTS + ROWS * WIDTH; i++) {
        start[i] = (float)(i % 11) - 5;
    }
    for (size_t i = 0; i < WORKERS; i++) {
        s->callers[i] = caller_new(&s->side.harness, names[i], 10 + i);
    }
    s->model =
        model_create(&s->callers[0], "m", "adam(lr=0.01) + clip(global_norm, 1)",
                     (struct opt_consistency){ .mode = OPT_SYNC }, tensors, 2, start);
    s->other =
        model_create(&s->callers[0], "other", "momentum(lr=0.1)",
                     (struct opt_consistency){
                         .mode = OPT_ASYNC, .damping = true, .loss = OPT_LOSS_WAIT },
                     tensors, 2, NULL);
    for (size_t i = 1; i < WORKERS; i++) {
        model_join(&s->callers[i], "m");
        model_join(&s->callers[i], "other");
    }
}

static void save(struct scene *s)
{
    static const char *const models[] = { "m", "other" };
    for (size_t i = 0; i < 2; i++) {
        struct letter *letter = letter_start(&s->callers[0], OPT_MESSAGE_CHECKPOINT);
        letter->request.body.checkpoint.model = models[i];
        ask(s, 0, letter);
    }
}

/* One of the moments at which the models may be saved. */
static void pass(struct scene *s)
{
    if (++s->moment == s->saved) {
        save(s);
    }
}

static void live(struct scene *s)
{
    pass(s);
    for (unsigned round = 0; round < 5; round++) {
        round_of(s, s->model, round, 0);
        round_of(s, s->other, round, 0);
    }
    pass(s);
    set(s, "m", "lr=0.5", 0);
    set(s, "m", "lr=0.25, tensors(\"rows\", lr_scale=2)", 8);
    set(s, "m", "lr=0.125", 1000);
    meet(s);
    pass(s);
    model_create(&s->callers[0], "brief", "sgd(lr=1)",
                 (struct opt_consistency){ .mode = OPT_SYNC }, tensors, 1, NULL);
    struct letter *letter = letter_start(&s->callers[0], OPT_MESSAGE_DELETE);
    letter->request.body.delete_ = "brief";
    ask(s, 0, letter);
    /* The third is taken for dead, and rests in its next life; of the other model it is
     * only lost. */
    caller_gone(&s->callers[2], true);
    for (unsigned round = 5; round < 9; round++) {
        round_of(s, s->model, round, 1);
    }
    pass(s);
    s->callers[2] = caller_new(&s->side.harness, names[2], 99);
    model_join(&s->callers[2], "m");
    letter = letter_start(&s->callers[2], OPT_MESSAGE_REST);
    letter->request.body.rest = s->model;
    ask(s, 2, letter);
    round_of(s, s->model, 9, 1);
    letter = letter_start(&s->callers[1], OPT_MESSAGE_LEAVE);
    letter->request.body.leave = s->other;
    ask(s, 1, letter);
    pass(s);
}

static void end(struct scene *s)
{
    for (size_t i = 0; i < WORKERS; i++) {
        caller_gone(&s->callers[i], false);
    }
    side_close(&s->side);
}

/* ---------------------------------------------------------------- the same */

static void expect_member(const struct member *a, const struct member *b)
{
    const char *name = a->worker->name;
    cr_assert_str_eq(name, b->worker->name);
    cr_assert_eq(a->joined, b->joined, "%s", name);
    cr_assert_eq(a->joined && a->resting, b->joined && b->resting, "%s", name);
    cr_assert_eq(a->lost, b->lost, "%s", name);
    cr_assert_eq(a->lost_step, b->lost_step, "%s", name);
    cr_assert_eq(a->last_step, b->last_step, "%s", name);
    cr_assert_eq(a->clock, b->clock, "%s", name);
    cr_assert_eq(a->since, b->since, "%s", name);
    cr_assert_eq(a->applied, b->applied, "%s", name);
    cr_assert_eq(a->arrival.passed, b->arrival.passed, "%s", name);
    cr_assert_eq(a->reserved, b->reserved, "%s", name);
    cr_assert_eq(memcmp(&a->window, &b->window, sizeof a->window), 0, "%s", name);
    cr_assert_eq(a->worker->session, b->worker->session, "%s", name);
    cr_assert_eq(a->worker->incarnation, b->worker->incarnation, "%s", name);
    cr_assert_eq(a->worker->lost, b->worker->lost, "%s", name);
    cr_assert_str_eq(a->worker->lost_why, b->worker->lost_why, "%s", name);
    cr_assert(!b->joined || b->away, "%s", name);
}

static void expect_changes(const struct model *a, const struct model *b)
{
    cr_assert_eq(a->changes.count, b->changes.count);
    cr_assert_eq(a->changes.done, b->changes.done);
    for (size_t i = 0; i < a->changes.count; i++) {
        cr_assert_eq(a->changes.list[i]->step, b->changes.list[i]->step);
        cr_assert_str_eq(a->changes.list[i]->before, b->changes.list[i]->before);
        cr_assert_str_eq(a->changes.list[i]->after, b->changes.list[i]->after);
    }
}

static void expect_values(const struct model *a, const struct model *b)
{
    for (size_t i = 0; i < a->shard_count; i++) {
        size_t bytes = a->shards[i].n * sizeof(float);
        cr_assert_eq(memcmp(version_values(a->shards[i].current),
                            version_values(b->shards[i].current), bytes),
                     0, "%s: shard %zu", a->name, i);
        for (size_t k = 0; k < a->slot_count; k++) {
            cr_assert_eq(memcmp(a->shards[i].slots[k], b->shards[i].slots[k], bytes), 0,
                         "%s: %s of shard %zu", a->name, a->slot_names[k], i);
        }
    }
    for (size_t i = 0; i < a->tensor_count; i++) {
        cr_assert_eq(a->tensors[i].counters.t, b->tensors[i].counters.t);
        cr_assert_eq(a->tensors[i].changed, b->tensors[i].changed);
    }
}

static void expect_model(const struct model *a, const struct model *b)
{
    cr_assert_not_null(b, "%s", a->name);
    cr_assert_eq(a->identity, b->identity);
    cr_assert_eq(a->step, b->step);
    cr_assert_eq(a->changed, b->changed);
    cr_assert_eq(a->ready, b->ready);
    cr_assert_eq(model_epoch(a), model_epoch(b));
    cr_assert_str_eq(a->canonical, b->canonical);
    cr_assert_str_eq(a->created, b->created);
    cr_assert_eq(a->rounds_skipped, b->rounds_skipped);
    cr_assert_eq(a->pushes_applied, b->pushes_applied);
    cr_assert_eq(a->dropped, b->dropped);
    cr_assert_eq(a->gathered, b->gathered);
    cr_assert_eq(a->losses.count, b->losses.count);
    cr_assert_eq(a->joined, b->joined);
    cr_assert_eq(a->active, b->active);
    cr_assert_eq(a->missing, b->missing);
    cr_assert_eq(a->durability.mode, b->durability.mode);
    expect_changes(a, b);
    expect_values(a, b);
    cr_assert_eq(a->member_count, b->member_count, "%s", a->name);
    for (size_t i = 0; i < a->member_count; i++) {
        expect_member(a->members[i], b->members[i]);
    }
}

/* As if the disk had failed for so long that some records could not be kept: the
 * journal goes on behind them with one that says little. */
static void make_gap(const char *path, uint64_t lost)
{
    struct opt_error error;
    struct data_dir dir;
    struct journal_reader *reader;
    struct journal *journal;
    struct journal_head head;
    uint64_t next = 0, index;
    const struct iovec *parts;
    size_t count;
    struct record_writer *writer = record_writer_new();
    cr_assert_eq(data_dir_open(path, &dir, &error), OPT_OK, "%s", error.text);
    const struct journal_place place = { .folder = dir.journal,
                                         .path = path,
                                         .identity = dir.identity };
    cr_assert_eq(journal_reader_open(&place, &reader, &error), OPT_OK);
    while (journal_reader_next(reader, &head, &error) == OPT_OK) {
        next = head.index + 1;
    }
    cr_assert_eq(journal_open(reader, next + lost, 1 << 20, &journal, &error), OPT_OK,
                 "%s", error.text);
    record_begin(writer);
    cr_assert_eq(record_add(writer,
                            &(struct record_entry){
                                .kind = RECORD_WORKER,
                                .worker = "stranger",
                                .of.worker = { .incarnation = 1, .lost_why = "" } },
                            &error),
                 OPT_OK);
    cr_assert_eq(record_parts(writer, &parts, &count, &error), OPT_OK);
    cr_assert_eq(journal_append(journal, parts, count, &index, &error), OPT_OK, "%s",
                 error.text);
    cr_assert_eq(journal_sync(journal, &error), OPT_OK);
    cr_assert_eq(index, next + lost);
    journal_free(journal);
    journal_reader_free(reader);
    record_writer_free(writer);
    data_dir_close(&dir);
}

static void expect_same(struct scene *s, const char *from, const char *to)
{
    char command[512];
    struct side copy;
    uv_mutex_lock(&s->side.harness.engine->turn);
    snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", to, from, to);
    cr_assert_eq(system(command), 0);
    if (s->gap > 0) {
        make_gap(to, s->gap);
    }
    side_open(&copy, to);
    struct engine *engine = s->side.harness.engine, *other = copy.harness.engine;
    uv_mutex_lock(&other->turn);
    cr_assert_eq(engine->model_count, other->model_count);
    for (size_t i = 0; i < engine->model_count; i++) {
        const struct model *model = engine->numbered[i];
        expect_model(model, names_find(&other->models, model->name));
    }
    uv_mutex_unlock(&other->turn);
    uv_mutex_unlock(&engine->turn);
    side_close(&copy);
}

/* The models are saved at that moment of their lives; 0: never. */
static void live_and_compare(unsigned saved, uint64_t gap)
{
    struct files files;
    struct scene s = { .model = 0, .saved = saved, .gap = gap };
    char from[128], to[128];
    files_open(&files);
    snprintf(from, sizeof from, "%s/from", files.path);
    snprintf(to, sizeof to, "%s/to", files.path);
    begin(&s, from);
    live(&s);
    expect_same(&s, from, to);
    end(&s);
    files_close(&files);
}

Test(restoring, of_the_journal_makes_the_same_again, .timeout = 60)
{
    live_and_compare(0, 0);
}

Test(restoring, of_checkpoints_and_the_journal_behind_them_does_too, .timeout = 60)
{
    for (unsigned moment = 1; moment < MOMENTS; moment++) {
        live_and_compare(moment, 0);
    }
}

Test(restoring, goes_on_behind_records_that_were_never_kept, .timeout = 60)
{
    live_and_compare(0, 7);
}

Test(restoring, ends_what_nobody_can_finish, .timeout = 60)
{
    struct files files;
    struct scene s = { .model = 0 };
    struct side copy;
    char from[128], to[128], command[512];
    files_open(&files);
    snprintf(from, sizeof from, "%s/from", files.path);
    snprintf(to, sizeof to, "%s/to", files.path);
    begin(&s, from);
    struct letter *letter = create_letter(&s.callers[0], "half", "sgd(lr=1)",
                                          (struct opt_consistency){ .mode = OPT_SYNC },
                                          tensors, 2, true, true);
    ask(&s, 0, letter);
    snprintf(command, sizeof command, "cp -r %s %s", from, to);
    cr_assert_eq(system(command), 0);
    side_open(&copy, to);
    cr_assert_eq(copy.harness.engine->model_count, 2);
    cr_assert_null(names_find(&copy.harness.engine->models, "half"));
    side_close(&copy);
    /* And so it stays. */
    side_open(&copy, to);
    cr_assert_eq(copy.harness.engine->model_count, 2);
    side_close(&copy);
    end(&s);
    files_close(&files);
}
