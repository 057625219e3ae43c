/* thread — whose turn it is: the engine's thread, its start and end, and the short
 * turns that loops take in its stead.
 *
 * The engine's state belongs to whoever holds `turn`. That is the engine's own thread,
 * except for light letters: a loop leaves them in the mailbox and, if the turn is free,
 * takes it, and serves what is there. So a small push is answered without waking
 * another thread twice, which would take several times as long as the push itself. What
 * would hold a loop up, large updates and copies above all, is only begun in such a
 * turn; the engine's thread goes on with it. Letters are taken from the mailbox within
 * the turn, so they are served in their order whoever serves them.
 */
#include <stdlib.h>

#include "server/base/team.h"
#include "server/durable/durable.h"
#include "server/durable/recovery.h"
#include "server/durable/saving.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/turn/removal.h"
#include "server/turn/settle.h"
#include "server/workers/worker.h"

enum {
    STALLED_NS = 1000000, /* how often readers are looked after */
    IDLE_NS = 1000000000  /* longest sleep */
};

static void begin_turn(struct engine *engine)
{
    engine->turn_began_ns = uv_hrtime();
    engine->turn_cost = 0;
}

/* A letter has been served or a piece of work done: others get a look in, and what is
 * done for them is the next turn. */
static void end_turn(struct engine *engine)
{
    struct engine_counters *counters = &engine->counters;
    uint64_t now = uv_hrtime(), took = now - engine->turn_began_ns;
    counters->turn_ns_most =
        took > counters->turn_ns_most ? took : counters->turn_ns_most;
    if (engine->turn_cost > counters->turn_cost_most) {
        counters->turn_cost_most = engine->turn_cost;
    }
    engine->turn_began_ns = now;
    engine->turn_cost = 0;
}

/* Some of the memory of deleted models; a loop leaves that to the thread. Who asked for
 * it is answered when all of it is free. */
static void free_dead(struct engine *engine)
{
    struct model *model = engine->visited ? NULL : engine->dead;
    if (model == NULL) {
        return;
    }
    struct model *next = model->next_dead;
    struct letter *letter = model->deleting;
    if (!model_free_some(engine, model)) {
        return;
    }
    engine->dead = next;
    if (letter != NULL) {
        letter->peer->queued--;
        answer_start(letter, OPT_MESSAGE_DELETE);
        answer_send(engine, letter);
        engine_conclude(engine);
    }
}

/* A letter has been served, a piece of work done, an alarm has rung. */
static void conclude(struct engine *engine)
{
    engine_conclude(engine);
    free_dead(engine);
    end_turn(engine);
}

static uint64_t sleep_ns(const struct engine *engine, bool moved)
{
    if (engine->dead != NULL) {
        return 0;
    }
    if (engine->busy_first != NULL) {
        return moved ? 0 : STALLED_NS;
    }
    uint64_t next = alarms_next(&engine->alarms);
    uint64_t now = uv_hrtime();
    if (next <= now) {
        return 0;
    }
    return next - now < IDLE_NS ? next - now : IDLE_NS;
}

/* Everything that was in progress is over: refuse what waits. */
static void drain(struct engine *engine)
{
    for (size_t i = 0; i < engine->model_count; i++) {
        removal_refuse(engine, engine->numbered[i], OPT_UNAVAILABLE,
                       "the daemon is stopping");
    }
    saving_refuse(engine);
}

/* What the disks have done, if anything. */
static void collect(struct engine *engine)
{
    if (engine->durable != NULL && durable_has_news(engine->durable)) {
        durable_collect(engine);
        conclude(engine);
    }
}

/* What is on disk: it comes back, piece by piece; later, some of a checkpoint, if one
 * is due. True: there is more to do at once. */
static bool keep(struct engine *engine)
{
    struct durable *durable = engine->durable;
    if (durable == NULL || (durable->recovery != NULL && engine->stopping)) {
        return false;
    }
    bool more =
        durable->recovery != NULL ? recovery_go_on(durable) : saving_go_on(durable);
    conclude(engine);
    return more;
}

/* Whether nothing is in progress any more, all who waited are answered, and what has
 * become true is on disk. */
static bool is_over(struct engine *engine)
{
    if (engine->busy_first != NULL || engine->dead != NULL) {
        return false;
    }
    drain(engine);
    conclude(engine);
    return durable_finish(engine);
}

/* Main has left other limits. */
static void take_limits(struct engine *engine)
{
    struct engine_settings *settings = &engine->settings;
    if (!atomic_load(&engine->adjusted)) {
        return;
    }
    uv_mutex_lock(&engine->adjusting);
    atomic_store(&engine->adjusted, false);
    struct engine_limits limits = engine->adjustment;
    uv_mutex_unlock(&engine->adjusting);
    settings->max_tensors = limits.max_tensors;
    settings->max_models = limits.max_models;
    settings->lease_ms = limits.lease_ms;
    settings->grace_ms = limits.grace_ms;
    settings->heartbeat_ms = limits.heartbeat_ms;
    settings->timeout_limit_ms = limits.timeout_limit_ms;
}

void engine_adjust(struct engine *engine, const struct engine_limits *limits)
{
    uv_mutex_lock(&engine->adjusting);
    engine->adjustment = *limits;
    atomic_store(&engine->adjusted, true);
    uv_mutex_unlock(&engine->adjusting);
}

/* Serve letters, of which LETTER_STOP is the thread's. Returns how many of these. */
static int serve(struct engine *engine, struct letter *letter)
{
    int stops = 0;
    bool any = letter != NULL;
    begin_turn(engine);
    engine->now_ns = engine->turn_began_ns;
    take_limits(engine);
    collect(engine);
    while (letter != NULL) {
        struct letter *next = letter->next;
        if (letter->kind == LETTER_STOP) {
            stops++;
        } else {
            engine_receive(engine, letter);
        }
        conclude(engine);
        letter = next;
    }
    if (any) {
        engine->counters.serve_ns += engine->turn_began_ns - engine->now_ns;
    }
    return stops;
}

/* What comes after the letters, whoever has served them. */
static void serve_later(struct engine *engine)
{
    if (engine->later.first != NULL) {
        engine_serve_later(engine);
        conclude(engine);
    }
}

static void ring_alarms(struct engine *engine)
{
    for (struct alarm *alarm;
         (alarm = alarms_due(&engine->alarms, engine->now_ns)) != NULL;) {
        alarm->on_alarm(engine, alarm);
        conclude(engine);
    }
}

/* Wait for something to do; the turn is free meanwhile. */
static void await(struct engine *engine, bool moved, bool keeps)
{
    uint64_t wait = keeps ? 0 : sleep_ns(engine, moved);
    if (wait > 0) {
        engine->wakes_ns = uv_hrtime() + wait;
        uv_mutex_unlock(&engine->turn);
        mailbox_await(&engine->box, wait);
        uv_mutex_lock(&engine->turn);
    }
}

/* The caller has the turn. */
static void serve_light(struct engine *engine)
{
    engine->visited = true;
    serve(engine, mailbox_take_light(&engine->box));
    serve_later(engine);
    engine->visited = false;
    bool due = engine->busy_first != NULL || engine->dead != NULL ||
               alarms_next(&engine->alarms) < engine->wakes_ns;
    uv_mutex_unlock(&engine->turn);
    if (due || mailbox_filled(&engine->box)) {
        mailbox_rouse(&engine->box);
    }
}

/* A disk's thread has something to tell. */
static void visit(struct engine *engine)
{
    if (uv_mutex_trylock(&engine->turn) != 0) {
        mailbox_rouse(&engine->box);
    } else if (engine->ended) {
        uv_mutex_unlock(&engine->turn);
    } else {
        serve_light(engine);
    }
}

static void run(void *argument)
{
    struct engine *engine = argument;
    engine->team = team_new(engine->settings.threads, engine->settings.shared_threads,
                            engine->settings.other_threads);
    bool moved = true, drained = false, end = engine->team == NULL;
    bool keeps = true;
    engine->started = !end;
    if (engine->durable != NULL && !end) {
        durable_begin(engine->durable, engine, visit);
    }
    uv_sem_post(&engine->drained);
    uv_mutex_lock(&engine->turn);
    while (!end) {
        await(engine, moved, keeps);
        for (int stops = serve(engine, mailbox_take(&engine->box)); stops > 0;
             stops--) {
            end = engine->stopping;
            engine->stopping = true;
        }
        ring_alarms(engine);
        moved = engine->busy_first == NULL || settle_busy(engine);
        engine->counters.updates_stalled += !moved;
        conclude(engine);
        serve_later(engine);
        keeps = keep(engine);
        if (engine->stopping && !drained && is_over(engine)) {
            drained = true;
            uv_sem_post(&engine->drained);
        }
    }
    engine->ended = true;
    uv_mutex_unlock(&engine->turn);
    team_free(engine->team);
}

void engine_visit(struct engine *engine)
{
    /* If the turn is taken, whoever has it looks for letters again at its end. */
    if (uv_mutex_trylock(&engine->turn) == 0) {
        serve_light(engine);
    }
}

static void free_state(struct engine *engine)
{
    engine->settings.recorder = NULL; /* what is freed is not over */
    if (engine->durable != NULL) {
        durable_end(engine->durable);
    }
    while (engine->model_count > 0) {
        struct model *model = engine->numbered[engine->model_count - 1];
        removal_delete(engine, model, "the daemon has stopped");
    }
    while (engine->dead != NULL) {
        conclude(engine);
    }
    for (size_t i = 0; i < engine->workers.capacity; i++) {
        worker_free(engine->workers.slots[i].thing);
    }
    names_fini(&engine->models);
    names_fini(&engine->workers);
    alarms_fini(&engine->alarms);
    free(engine->numbered);
    mailbox_fini(&engine->box);
    uv_mutex_destroy(&engine->adjusting);
    uv_mutex_destroy(&engine->turn);
    uv_sem_destroy(&engine->drained);
    free(engine);
}

enum opt_status engine_start(const struct engine_settings *settings,
                             struct engine **out, struct opt_error *error)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) {
        return opt_fail(error, OPT_UNAVAILABLE, "no memory for the engine");
    }
    engine->settings = *settings;
    engine->durable = settings->durable;
    budget_init(&engine->budget, settings->memory_bytes);
    engine->stop.kind = LETTER_STOP;
    engine->now_ns = uv_hrtime();
    if (uv_sem_init(&engine->drained, 0) != 0) {
        free(engine);
        return opt_fail(error, OPT_UNAVAILABLE, "no resources for the engine's thread");
    }
    if (uv_mutex_init(&engine->turn) != 0) {
        uv_sem_destroy(&engine->drained);
        free(engine);
        return opt_fail(error, OPT_UNAVAILABLE, "no resources for the engine's thread");
    }
    if (uv_mutex_init(&engine->adjusting) != 0) {
        uv_mutex_destroy(&engine->turn);
        uv_sem_destroy(&engine->drained);
        free(engine);
        return opt_fail(error, OPT_UNAVAILABLE, "no resources for the engine's thread");
    }
    if (mailbox_init(&engine->box) != 0) {
        uv_mutex_destroy(&engine->adjusting);
        uv_mutex_destroy(&engine->turn);
        uv_sem_destroy(&engine->drained);
        free(engine);
        return opt_fail(error, OPT_UNAVAILABLE, "no resources for the engine's thread");
    }
    int code = uv_thread_create(&engine->thread, run, engine);
    if (code == 0) {
        uv_sem_wait(&engine->drained);
        if (engine->started) {
            *out = engine;
            return OPT_OK;
        }
        uv_thread_join(&engine->thread);
    }
    free_state(engine);
    return opt_fail(error, OPT_UNAVAILABLE, "the engine cannot start: %s",
                    code == 0 ? "no memory" : uv_strerror(code));
}

int engine_threads(const struct engine *engine)
{
    return engine->team->usual;
}

uint64_t engine_refused_ns(const struct engine *engine)
{
    return atomic_load(&engine->refused_ns);
}

struct mailbox *engine_mailbox(struct engine *engine)
{
    return &engine->box;
}

void engine_stop(struct engine *engine)
{
    mailbox_post(&engine->box, &engine->stop);
    uv_sem_wait(&engine->drained);
}

void engine_free(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    mailbox_post(&engine->box, &engine->stop);
    uv_thread_join(&engine->thread);
    free_state(engine);
}
