/* play — see play.h. */
#include "tests/fates/play.h"

#include <stdio.h>

#include "client/optclient.h"
#include "tests/fates/cast.h"
#include "tests/fates/judge.h"
#include "tests/fates/sockets.h"
#include "tests/fates/world.h"

const char *const policy_names[POLICIES] = { "sync",   "async",   "bounded",
                                             "backup", "samples", "shard" };
const char *const transport_names[TRANSPORTS] = { "tcp", "shared" };

static const char *const event_sentences[EVENTS] = {
    "the copy arrives",
    "half a copy arrives",
    "a damaged copy arrives",
    "a copy arrives and is refused",
    "a copy arrives and finds no room",
    "A's connection is cut",
    "the push's deadline passes",
    "A closes the model",
    "another process takes A's name",
    "A is killed and started again",
    "A's lease is lost",
    "A's connection is cut and the daemon takes no other for a while",
    "B pushes",
    "half of a push of B arrives",
    "the daemon stops",
    "A's connection is cut in the middle of the answer",
    "A's connection is cut in the middle of the answer to a pull",
};

enum { SERVED_MS = 5000 /* when everything is well a push takes no longer */ };

/* ------------------------------------------------------------------- events */

/* B pushes, unless its last push has not been answered. */
static void push_of_b(void)
{
    static size_t last;
    if (cast.push_count == 1) {
        last = 0;
    }
    if ((last == 0 || cast_has_ended(last)) && cast.push_count < PUSHES_MOST - 8) {
        last = cast_push(1);
    }
}

/* Time passes while whoever has bytes held back is slow, not silent. */
static void pass_slowly(uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += 500) {
        sockets_trickle(0);
        sockets_trickle(1);
        judge_pass(500);
    }
}

static void let_through(bool half)
{
    sockets_let_through(0, half);
    world_settle();
}

static void lose_lease(void)
{
    sockets_isolate(0, true);
    pass_slowly(LEASE_MS + GRACE_MS + 2000);
    sockets_isolate(0, false);
    judge_pass(300);
}

static void stop_daemon(void)
{
    sockets_hold_pushes(0, false);
    cast_stop_daemon();
    judge_pass(PUSH_MS + 5000);
}

static void happen_to_copy(enum event event)
{
    switch (event) {
    case COPY_DAMAGED:
        sockets_damage(0);
        let_through(false);
        break;
    case COPY_REFUSED:
        cast_refuse_data(true);
        let_through(false);
        cast_refuse_data(false);
        break;
    case NO_ROOM:
        cast_leave_no_room(true);
        let_through(false);
        judge_pass(ROOM_MS + 1000);
        cast_leave_no_room(false);
        break;
    default:
        let_through(event == COPY_HALF);
        break;
    }
}

/* A closes the model. The daemon's answer to that settles all it has of A's. */
static void close_model(void)
{
    const struct told *told = &cast.pushes[0].told;
    bool settles = cast.engine != NULL && cast.living == 0 && !told->ended &&
                   sockets_are_up(0) && !sockets_push_is_held(0);
    cast_close(&cast.parties[0]);
    if (cast_has_ended(0) && settles && told->result.fate == OPTCLIENT_NOT_KNOWN) {
        cast_fail("push 0 was cancelled, and was told that its fate is not known, "
                  "though the daemon has said it: %s",
                  told->sentence);
    }
}

static void happen_to_a(enum event event)
{
    switch (event) {
    case CUT:
    case FULL:
        cast.is_full = event == FULL;
        sockets_cut(0);
        judge_pass(300);
        cast.is_full = false;
        break;
    case DEADLINE:
        pass_slowly(PUSH_MS + 1000);
        break;
    case CANCELLED:
        close_model();
        break;
    case RESTARTED:
        cast_kill_a();
        cast_appear_again();
        break;
    case TAKEN_OVER:
        cast_appear_again();
        break;
    default:
        lose_lease();
        break;
    }
}

static void happen(enum event event)
{
    judge_look();
    switch (event) {
    case ROUND:
        sockets_hold_pushes(1, false);
        push_of_b();
        judge_pass(10);
        break;
    case HALF_OF_B:
        sockets_hold_pushes(1, true);
        push_of_b();
        sockets_let_through(1, true);
        world_settle();
        break;
    case STOPPED:
        stop_daemon();
        break;
    case PULL_CUT:
        sockets_cut_answer(0);
        cast_pull_of_a();
        judge_pass(10);
        break;
    case ANSWER_CUT:
        sockets_cut_answer(0);
        break;
    default:
        if (event < CUT) {
            happen_to_copy(event);
        } else {
            happen_to_a(event);
        }
        break;
    }
    judge_look();
}

static bool is_often(enum event event)
{
    return event == COPY_WHOLE || event == COPY_HALF || event == CUT ||
           event == ROUND || event == COPY_DAMAGED;
}

bool order_pulls(const struct order *order)
{
    bool pulls = order->pulls;
    for (size_t i = 0; i < order->count; i++) {
        pulls = pulls || order->events[i] == ANSWER_CUT;
    }
    return pulls;
}

/* What else can still happen to the push under test. */
bool order_is_possible(const struct order *order)
{
    bool gone = false; /* A is no more, or has given up */
    bool halved = false;
    size_t times[EVENTS] = { 0 };
    for (size_t i = 0; i < order->count; i++) {
        enum event event = order->events[i];
        bool data = order->transport == TCP;
        if (++times[event] > (is_often(event) ? 2 : 1) ||
            (!data && (event == COPY_DAMAGED || event == COPY_REFUSED)) ||
            (halved && event == HALF_OF_B) || times[STOPPED] > (event == STOPPED)) {
            return false;
        }
        if (gone && (event < CUT || event == CANCELLED || event == DEADLINE ||
                     event == ANSWER_CUT || event == PULL_CUT)) {
            return false;
        }
        /* The halves of other rounds do nothing by themselves. */
        if (event == HALF_OF_B && order->policy != SHARD) {
            return false;
        }
        gone = gone || event == CANCELLED || event == RESTARTED;
        halved = event == HALF_OF_B || (halved && event != ROUND);
    }
    return true;
}

void order_sentence(const struct order *order, char *out, size_t size)
{
    size_t used =
        (size_t)snprintf(out, size, "%s, %s: A pushes", policy_names[order->policy],
                         transport_names[order->transport]);
    for (size_t i = 0; i < order->count && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, ", %s",
                                 event_sentences[order->events[i]]);
    }
}

/* ----------------------------------------------------------- when all is over */

/* The first push that somebody still waits for; push_count: none. */
static size_t first_awaited(void)
{
    size_t i = 0;
    while (i < cast.push_count && (cast_has_ended(i) || !cast.pushes[i].told.wanted)) {
        i++;
    }
    return i;
}

/* Everybody goes on, until nobody waits. */
static void go_on(void)
{
    sockets_hold_pushes(0, false);
    sockets_hold_pushes(1, false);
    judge_pass(1000);
    for (int i = 0; i < 8 && cast.pushes[0].told.wanted && !cast_has_ended(0); i++) {
        push_of_b();
        judge_pass(1000);
    }
    for (int i = 0; i <= PUSH_MS / 1000 && first_awaited() < cast.push_count; i++) {
        judge_pass(1000);
    }
    if (first_awaited() < cast.push_count) {
        cast_fail("push %zu hangs", first_awaited());
    }
    if (cast.pull.told.wanted && !cast_pull_has_ended()) {
        cast_fail("the pull hangs");
    }
}

static void pass_until_told(void)
{
    for (int i = 0; i < SERVED_MS / 100 && first_awaited() < cast.push_count; i++) {
        judge_pass(100);
    }
}

/* Whoever lives is served at once. A push of before may have taken a place in the round
 * that is open, so one of the two may need another one of the other. */
static void serve_all(void)
{
    if (cast.living == 0 && cast.parties[0].model == NULL) {
        cast_open(0);
    }
    for (int round = 0; round < 2 && !cast.failed; round++) {
        size_t first = cast.push_count;
        size_t of_a = cast_push(cast.living), of_b = cast_push(1);
        for (int more = 0; more < 2; more++) {
            pass_until_told();
            if (!cast_has_ended(of_a) && cast_has_ended(of_b)) {
                of_b = cast_push(1);
            } else if (!cast_has_ended(of_b) && cast_has_ended(of_a)) {
                of_a = cast_push(cast.living);
            }
        }
        pass_until_told();
        for (size_t i = first; i < cast.push_count; i++) {
            if (!cast_has_ended(i)) {
                cast_fail("push %zu, after all is over, is not served", i);
            } else if (cast.pushes[i].told.status != OPTCLIENT_OK) {
                cast_fail("push %zu, after all is over, is refused: %s", i,
                          cast.pushes[i].told.sentence);
            }
        }
    }
}

bool order_play(const struct order *order, char *why, size_t size, char *trace,
                size_t trace_size)
{
    trace[0] = '\0';
    cast_begin(order, why, size);
    if (!cast.failed) {
        sockets_hold_pushes(0, true);
        cast_push(0);
        for (size_t i = 0; i < order->count && !cast.failed; i++) {
            happen(order->events[i]);
        }
    }
    if (!cast.failed) {
        go_on();
    }
    if (!cast.failed && cast.engine != NULL) {
        serve_all();
    }
    judge_pushes(trace, trace_size);
    cast_end();
    return !cast.failed;
}
