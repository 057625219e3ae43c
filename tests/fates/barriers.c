/* barriers — see barriers.h. */
#include "tests/fates/barriers.h"

#include <pthread.h>
#include <stdio.h>

#include "client/optclient.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "tests/fates/cast.h"
#include "tests/fates/sockets.h"
#include "tests/fates/world.h"

enum {
    BARRIER_MS = 4000,
    LOOK_MS = 100,
    MEET_MS = 1000, /* who can be reached has met the other by then */
    COMINGS_MOST = 16,
    NS_PER_MS = 1000000
};

const char *const barrier_words[BARRIER_EVENTS] = {
    "A-comes", "B-comes",  "A-is-cut",        "A-is-silent",   "A-is-heard",
    "time",    "A-closes", "A-is-taken-over", "A-is-restarted"
};

/* One call of optclient_barrier, in a thread of its own. */
struct coming {
    int who;
    struct optclient_model *model;
    pthread_t thread;
    bool ended, looked;
    uint64_t from_ns, to_ns;
    enum optclient_status status;
    char sentence[300];
};

static struct {
    struct coming comings[COMINGS_MOST];
    size_t count;
    int of_a, of_b;     /* the last of each, or -1 */
    uint64_t alone_ns;  /* when last B was the model's only worker */
    uint64_t silent_ns; /* when last A could not be reached */
} meeting;

static void *wait_there(void *argument)
{
    struct coming *coming = argument;
    coming->status = optclient_barrier(coming->model, BARRIER_MS, NULL);
    snprintf(coming->sentence, sizeof(coming->sentence), "%s",
             coming->status != OPTCLIENT_OK ? optclient_error() : "");
    coming->to_ns = world_now();
    coming->ended = true;
    return NULL;
}

static bool is_there(int coming)
{
    return coming >= 0 && !meeting.comings[coming].ended;
}

static void come(int who, int *last)
{
    if (is_there(*last) && meeting.comings[*last].who == who) {
        return;
    }
    if (cast.parties[who].model == NULL && sockets_are_isolated(who)) {
        return; /* it cannot open the model again */
    }
    if (cast.parties[who].model == NULL) {
        cast_open(who);
    }
    if (cast.failed || meeting.count == COMINGS_MOST) {
        return;
    }
    *last = (int)meeting.count++;
    struct coming *coming = &meeting.comings[*last];
    *coming = (struct coming){ .who = who,
                               .model = cast.parties[who].model,
                               .from_ns = world_now() };
    pthread_create(&coming->thread, NULL, wait_there, coming);
    world_settle();
}

/* ------------------------------------------------------------------ judging */

static uint64_t ms_since(uint64_t ns)
{
    return (world_now() - ns) / NS_PER_MS;
}

/* Whether the other was in a barrier when this one was passed, as near as we look. What
 * A is told may have been on its way for long: then, while A waited. */
static bool has_met(const struct coming *coming)
{
    uint64_t since = coming->who == 1 ? coming->to_ns - (uint64_t)LOOK_MS * NS_PER_MS
                                      : coming->from_ns;
    for (size_t i = 0; i < meeting.count; i++) {
        const struct coming *other = &meeting.comings[i];
        if ((other->who == 1) != (coming->who == 1) &&
            (!other->ended || other->to_ns >= since)) {
            return true;
        }
    }
    return false;
}

/* Whether the other waits as long as it takes to meet, and both can be reached. */
static bool could_meet(const struct coming *coming)
{
    int last = coming->who == 1 ? meeting.of_a : meeting.of_b;
    const struct coming *other = &meeting.comings[last < 0 ? 0 : last];
    const struct coming *of_a = coming->who == 1 ? other : coming;
    return is_there(last) && ms_since(other->from_ns) > MEET_MS &&
           of_a->who == cast.living && ms_since(meeting.silent_ns) > MEET_MS;
}

static void judge(const struct coming *coming)
{
    const char *name = coming->who == 1 ? "B" : "A";
    uint64_t waited = (coming->to_ns - coming->from_ns) / NS_PER_MS;
    bool in_time = waited >= BARRIER_MS && waited <= BARRIER_MS + 1000;
    if (coming->status == OPTCLIENT_OK) {
        if (!has_met(coming) && ms_since(meeting.alone_ns) > LOOK_MS) {
            cast_fail("%s has passed a barrier alone", name);
        }
    } else if (coming->status == OPTCLIENT_DEADLINE_EXCEEDED && in_time) {
        if (could_meet(coming)) {
            cast_fail("%s has not met who waits there too: %s", name, coming->sentence);
        }
    } else if (coming->who == 1) {
        cast_fail("B was told after %d ms: %s", (int)waited, coming->sentence);
    }
}

static void look(void)
{
    bool alone = cast.engine->numbered[0]->joined < 2;
    meeting.alone_ns = alone ? world_now() : meeting.alone_ns;
    for (size_t i = 0; i < meeting.count; i++) {
        struct coming *coming = &meeting.comings[i];
        if (coming->ended && !coming->looked) {
            coming->looked = true;
            judge(coming);
        }
    }
    if (sockets_are_isolated(cast.living)) {
        meeting.silent_ns = world_now();
    }
}

static void pass(uint64_t ms)
{
    look();
    for (uint64_t passed = 0; passed < ms; passed += LOOK_MS) {
        world_pass(LOOK_MS);
        look();
    }
}

/* ------------------------------------------------------------------- events */

static void happen(enum barrier_event event)
{
    switch (event) {
    case A_COMES:
        come(cast.living, &meeting.of_a);
        break;
    case B_COMES:
        come(1, &meeting.of_b);
        break;
    case A_IS_CUT:
        sockets_cut(cast.living);
        break;
    case A_IS_SILENT:
    case A_IS_HEARD:
        sockets_isolate(cast.living, event == A_IS_SILENT);
        break;
    case TIME_PASSES:
        pass(BARRIER_MS + 100);
        break;
    case A_CLOSES:
        cast_close(&cast.parties[cast.living]);
        break;
    case A_IS_RESTARTED:
        cast_kill_a();
        cast_appear_again();
        break;
    default:
        cast_appear_again();
        break;
    }
    if (event >= A_CLOSES) {
        meeting.alone_ns = world_now(); /* it was, before another life joined */
    }
    pass(LOOK_MS);
}

bool barrier_order_is_possible(const struct barrier_order *order)
{
    size_t times[BARRIER_EVENTS] = { 0 };
    bool silent = false;
    for (size_t i = 0; i < order->count; i++) {
        enum barrier_event event = order->events[i];
        size_t most = event <= A_IS_CUT || event == TIME_PASSES ? 2 : 1;
        bool other_life = event == A_IS_TAKEN_OVER || event == A_IS_RESTARTED;
        if (i == 0 && event > B_COMES) {
            return false; /* nothing has begun */
        }
        if (++times[event] > most || (event == A_IS_HEARD && !silent) ||
            times[A_IS_TAKEN_OVER] + times[A_IS_RESTARTED] > 1 ||
            (silent && event == A_CLOSES)) {
            return false;
        }
        silent = event == A_IS_SILENT || (silent && event != A_IS_HEARD && !other_life);
    }
    return true;
}

/* --------------------------------------------------------------------- play */

/* When all is over the two meet at once. */
static void meet(void)
{
    sockets_isolate(cast.living, false);
    pass(BARRIER_MS + 3000);
    for (size_t i = 0; i < meeting.count && !cast.failed; i++) {
        const struct coming *coming = &meeting.comings[i];
        if (!coming->ended && (coming->who == 1 || coming->who == cast.living)) {
            cast_fail("%s hangs at a barrier", coming->who == 1 ? "B" : "A");
        }
    }
    size_t first = meeting.count;
    come(cast.living, &meeting.of_a);
    come(1, &meeting.of_b);
    pass(MEET_MS);
    for (size_t i = first; i < meeting.count && !cast.failed; i++) {
        const struct coming *coming = &meeting.comings[i];
        if (!coming->ended || coming->status != OPTCLIENT_OK) {
            cast_fail("after all is over %s does not pass: %s",
                      coming->who == 1 ? "B" : "A",
                      coming->ended ? coming->sentence : "it still waits");
        }
    }
}

bool barrier_order_play(const struct barrier_order *order, char *why, size_t size)
{
    const struct order plain = { .policy = SYNC, .transport = order->transport };
    meeting.count = 0;
    meeting.of_a = meeting.of_b = -1;
    meeting.alone_ns = meeting.silent_ns = 0;
    cast_begin(&plain, why, size);
    for (size_t i = 0; i < order->count && !cast.failed; i++) {
        happen(order->events[i]);
    }
    if (!cast.failed) {
        meet();
    }
    cast_leave();
    for (size_t i = 0; i < meeting.count; i++) {
        pthread_join(meeting.comings[i].thread, NULL);
    }
    cast_end();
    return !cast.failed;
}
