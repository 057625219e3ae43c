/* play — see play.h. */
#include "tests/fates/play.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "common/log.h"
#include "common/wire.h"
#include "server/engine/engine.h"
#include "server/letter.h"
#include "server/net/limits.h"
#include "server/net/loop.h"
#include "tests/fates/sockets.h"
#include "tests/fates/world.h"
#include "tests/fates/wraps.h"

const char *const policy_names[POLICIES] = { "sync",   "async",   "bounded",
                                             "backup", "samples", "shard" };
const char *const transport_names[TRANSPORTS] = { "tcp", "shared" };

static const char *const event_sentences[EVENTS] = {
    "the copy arrives",
    "half a copy arrives",
    "a damaged copy arrives",
    "a copy arrives and is refused",
    "A's connection is cut",
    "the push's deadline passes",
    "A closes the model",
    "another process takes A's name",
    "A is killed and started again",
    "A's lease is lost",
    "B pushes",
};

enum {
    SHARDS = 3,
    OF_SHARD = 64, /* tensors, each a block, make a shard */
    TENSORS = SHARDS * OF_SHARD,
    /* All are of one element but this one, in the middle of the second shard. It fills
     * a frame, so a push takes three: the first has all of the first shard. */
    LARGE = OF_SHARD + OF_SHARD / 2,
    ELEMENTS = TENSORS - 1 + OPT_BLOCK,
    HEADER_BYTES = 4 << 10,
    FRAME_BYTES = HEADER_BYTES + OPT_FRAME_BEGIN_MAX + OPT_BLOCK * (int)sizeof(float),
    PUSHES_MOST = 24,
    PUSH_MS = 20000, /* a push's deadline */
    LEASE_MS = 5000,
    GRACE_MS = 1000,
    SERVED_MS = 5000, /* when everything is well a push takes no longer */
    PARTIES = 4       /* A, B, A's other lives */
};

/* What a worker was told of a push. */
struct told {
    bool wanted; /* somebody has asked, and can be told */
    bool ended;
    enum optclient_status status;
    struct optclient_result result;
    char sentence[600];
};

struct pushed {
    struct optclient_call *call;
    struct told told;
    float *gradient; /* ELEMENTS values */
    float *weights;  /* the same, of what is pulled with it; NULL: nothing is */
};

struct party {
    struct optclient *client; /* NULL: not there */
    struct optclient_model *model;
    bool dead; /* killed: nobody asks it any more */
};

static struct play {
    const struct order *order;
    struct engine *engine;
    struct loops *loops;
    struct party parties[PARTIES];     /* 0 is A, 1 is B; 2 and 3 A's other lives */
    int living;                        /* which of them is A now */
    int others;                        /* of A's lives so far */
    struct pushed pushes[PUSHES_MOST]; /* 0 is the push under test */
    size_t push_count;
    char *why;
    size_t why_size;
    bool failed;
} play;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *format, ...)
{
    if (!play.failed) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(play.why, play.why_size, format, arguments);
        va_end(arguments);
        play.failed = true;
    }
}

/* ------------------------------------------------- refusing a copy of a push */

/* A copy is refused by the want of memory for its values. */
static bool refuses_data;
bool __wrap_letter_data(struct letter *letter, size_t size)
{
    if (refuses_data && letter_push(letter) != NULL) {
        refuses_data = false;
        return false;
    }
    return __real_letter_data(letter, size);
}

/* ------------------------------------------------------------------- daemon */

static void on_dialled(void *loops, int socket)
{
    loops_deal(loops, socket, false);
}

static void start_daemon(void)
{
    struct opt_error error;
    const struct engine_settings settings = {
        .threads = 1,
        .shared_threads = 1,
        .memory_bytes = (size_t)256 << 20,
        .max_tensors = 1000,
        .max_models = 4,
        .lease_ms = LEASE_MS,
        .grace_ms = GRACE_MS,
        .heartbeat_ms = 1000,
        .timeout_limit_ms = 4 * PUSH_MS,
        .max_frame_bytes = FRAME_BYTES,
        .max_header_bytes = HEADER_BYTES,
    };
    const struct net_limits limits = {
        .frame = { .frame_bytes = settings.max_frame_bytes,
                   .header_bytes = settings.max_header_bytes },
        .connections = 100,
        .table_bytes = 1 << 20,
        .connection_bytes = 16 << 20,
        .inflight_bytes = 64 << 20,
        .hello_ms = 10000,
        .frame_ms = 30000,
        .frame_rate = 1000,
        .write_ms = 30000,
        .write_rate = 1000,
        .idle_ms = 600000,
        .room_ms = 10000,
        .shares_memory = play.order->transport == SHARED,
        .congestion = "",
    };
    if (engine_start(&settings, &play.engine, &error) != OPT_OK ||
        loops_start(&limits, 1, play.engine, &play.loops, &error) != OPT_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    sockets_listen(on_dialled, play.loops);
}

static void stop_daemon(void)
{
    loops_quiet(play.loops);
    engine_stop(play.engine);
    loops_stop(play.loops);
    engine_free(play.engine);
}

/* ------------------------------------------------------------------ parties */

static struct optclient_policy policy_of(enum policy policy)
{
    switch (policy) {
    case ASYNC:
        return (struct optclient_policy){ .mode = OPTCLIENT_ASYNC };
    case BOUNDED:
        return (struct optclient_policy){ .mode = OPTCLIENT_BOUNDED, .staleness = 1 };
    case BACKUP:
        return (struct optclient_policy){ .min_workers = 2, .backup = 1 };
    case SAMPLES:
        return (struct optclient_policy){ .samples = 2 };
    case SHARD:
        return (struct optclient_policy){ .min_workers = 2,
                                          .atomic = OPTCLIENT_ATOMIC_SHARD };
    default:
        return (struct optclient_policy){ .min_workers = 2 };
    }
}

static bool must(enum optclient_status status, const char *what)
{
    if (status != OPTCLIENT_OK) {
        fail("%s: %s: %s", what, optclient_status_name(status), optclient_error());
    }
    return status == OPTCLIENT_OK;
}

static void open_model(int who)
{
    struct party *party = &play.parties[who];
    party->model = NULL;
    must(optclient_open(party->client, "m", 1, &party->model),
         who == 1 ? "B opens" : "A opens");
}

static bool appear(int who, const char *name)
{
    bool shared = play.order->transport == SHARED;
    struct optclient_options options = {
        .worker = name, .backoff_min_ms = 10, .backoff_max_ms = 200, .checksum = !shared
    };
    world_belongs(who);
    bool here = must(optclient_connect(shared ? "unix:/optimd" : "127.0.0.1:7070",
                                       &options, &play.parties[who].client),
                     "connect");
    world_belongs(WORLD_NOBODY);
    return here;
}

static void create(void)
{
    static char names[TENSORS][8];
    static struct optclient_tensor tensors[TENSORS];
    static const uint64_t one = 1, block = OPT_BLOCK;
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof(names[i]), "t%zu", i);
        tensors[i] = (struct optclient_tensor){
            .name = names[i],
            .shape = i == LARGE ? &block : &one,
            .rank = 1,
        };
    }
    struct optclient_policy policy = policy_of(play.order->policy);
    must(optclient_create(play.parties[0].client, "m",
                          "sgd(lr=1, aggregate=sum, nonfinite=propagate)", &policy,
                          tensors, TENSORS, NULL, &play.parties[0].model),
         "A creates");
}

/* ------------------------------------------------------------------- pushes */

/* All tensors, in memory for ELEMENTS values. */
static void spread(float *memory, struct optclient_values values[TENSORS])
{
    for (size_t i = 0; i < TENSORS; i++) {
        values[i] = (struct optclient_values){ .tensor = i, .values = memory };
        memory += i == LARGE ? (int)OPT_BLOCK : 1;
    }
}

/* Push as a party, with the elements of a number of its own. */
static size_t push(int who)
{
    struct party *party = &play.parties[who];
    size_t number = play.push_count++;
    struct pushed *push = &play.pushes[number];
    *push = (struct pushed){ .told.wanted = true };
    push->gradient = calloc(ELEMENTS, sizeof(*push->gradient));
    struct optclient_values values[TENSORS];
    spread(push->gradient, values);
    for (size_t shard = 0; shard < SHARDS; shard++) {
        values[shard * OF_SHARD + number].values[0] = 1;
    }
    struct optclient_push_options options = { .timeout_ms = PUSH_MS };
    if (number == 0 && play.order->pulls) {
        struct optclient_values pulled[TENSORS];
        push->weights = calloc(ELEMENTS, sizeof(*push->weights));
        spread(push->weights, pulled);
        push->told.status =
            optclient_push_pull_start(party->model, values, TENSORS, &options, pulled,
                                      TENSORS, NULL, NULL, NULL, &push->call);
    } else {
        push->told.status = optclient_push_start(party->model, values, TENSORS,
                                                 &options, NULL, NULL, &push->call);
    }
    if (push->told.status != OPTCLIENT_OK) {
        push->call = NULL;
        push->told.ended = true;
        snprintf(push->told.sentence, sizeof(push->told.sentence), "%s",
                 optclient_error());
    }
    world_settle();
    return number;
}

/* Take what has been told of all pushes by now. */
static void hear(void)
{
    for (size_t i = 0; i < play.push_count; i++) {
        struct pushed *push = &play.pushes[i];
        struct told *told = &push->told;
        if (!told->ended && push->call != NULL && optclient_call_done(push->call)) {
            told->ended = true;
            told->status = optclient_call_wait(push->call, &told->result);
            snprintf(told->sentence, sizeof(told->sentence), "%s",
                     told->status != OPTCLIENT_OK ? optclient_error() : "");
        }
    }
}

static bool has_ended(size_t push)
{
    hear();
    return play.pushes[push].told.ended;
}

/* B pushes, unless its last push has not been answered. */
static void push_of_b(void)
{
    static size_t last;
    if (play.push_count == 1) {
        last = 0;
    }
    if ((last == 0 || has_ended(last)) && play.push_count < PUSHES_MOST - 8) {
        last = push(1);
    }
}

/* ------------------------------------------------------------------- events */

static void happen(enum event event)
{
    struct party *a = &play.parties[0];
    switch (event) {
    case COPY_WHOLE:
    case COPY_HALF:
        sockets_let_through(0, event == COPY_HALF);
        world_settle();
        break;
    case COPY_DAMAGED:
        sockets_damage(0);
        sockets_let_through(0, false);
        world_settle();
        break;
    case COPY_REFUSED:
        refuses_data = true;
        sockets_let_through(0, false);
        world_settle();
        refuses_data = false;
        break;
    case CUT:
        sockets_cut(0);
        world_pass(300);
        break;
    case DEADLINE:
        world_pass(PUSH_MS + 1000);
        break;
    case CANCELLED:
        optclient_model_close(a->model);
        a->model = NULL;
        world_settle();
        break;
    case TAKEN_OVER:
    case RESTARTED:
        if (event == RESTARTED) {
            hear();
            sockets_isolate(0, true);
            sockets_cut(0);
            a->dead = true;
            play.pushes[0].told.wanted = play.pushes[0].told.ended;
        }
        play.living = 2 + play.others++;
        if (appear(play.living, "A")) {
            open_model(play.living);
        }
        break;
    case LEASE_LOST:
        sockets_isolate(0, true);
        world_pass(LEASE_MS + GRACE_MS + 2000);
        sockets_isolate(0, false);
        world_pass(300);
        break;
    case ROUND:
        push_of_b();
        world_pass(10);
        break;
    case EVENTS:
        break;
    }
}

/* What else can still happen to the push under test. */
bool order_is_possible(const struct order *order)
{
    bool gone = false; /* A is no more, or has given up */
    size_t times[EVENTS] = { 0 };
    for (size_t i = 0; i < order->count; i++) {
        enum event event = order->events[i];
        bool of_copy = event <= COPY_REFUSED;
        bool data = order->transport == TCP;
        size_t most = event == COPY_WHOLE || event == COPY_HALF || event == CUT ||
                              event == ROUND || event == COPY_DAMAGED
                          ? 2
                          : 1;
        if (++times[event] > most ||
            (!data && (event == COPY_DAMAGED || event == COPY_REFUSED))) {
            return false;
        }
        if (gone && (of_copy || event == CANCELLED || event == DEADLINE)) {
            return false;
        }
        gone = gone || event == CANCELLED || event == RESTARTED;
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

/* ------------------------------------------------------------------ judging */

/* The first push that somebody still waits for; push_count: none. */
static size_t first_awaited(void)
{
    size_t i = 0;
    while (i < play.push_count && (has_ended(i) || !play.pushes[i].told.wanted)) {
        i++;
    }
    return i;
}

/* Everybody goes on, until nobody waits. */
static void go_on(void)
{
    sockets_hold_pushes(0, false);
    world_pass(1000);
    for (int i = 0; i < 8 && play.pushes[0].told.wanted && !has_ended(0); i++) {
        push_of_b();
        world_pass(1000);
    }
    for (int i = 0; i <= PUSH_MS / 1000 && first_awaited() < play.push_count; i++) {
        world_pass(1000);
    }
    if (first_awaited() < play.push_count) {
        fail("push %zu hangs", first_awaited());
    }
}

static void pass_until_told(void)
{
    for (int i = 0; i < SERVED_MS / 100 && first_awaited() < play.push_count; i++) {
        world_pass(100);
    }
}

/* Whoever lives is served at once. A push of before may have taken a place in the round
 * that is open, so one of the two may need another one of the other. */
static void serve_all(void)
{
    if (play.living == 0 && play.parties[0].model == NULL) {
        open_model(0);
    }
    for (int round = 0; round < 2 && !play.failed; round++) {
        size_t first = play.push_count;
        size_t of_a = push(play.living), of_b = push(1);
        for (int more = 0; more < 2; more++) {
            pass_until_told();
            if (!has_ended(of_a) && has_ended(of_b)) {
                of_b = push(1);
            } else if (!has_ended(of_b) && has_ended(of_a)) {
                of_a = push(play.living);
            }
        }
        pass_until_told();
        for (size_t i = first; i < play.push_count; i++) {
            if (!has_ended(i)) {
                fail("push %zu, after all is over, is not served", i);
            } else if (play.pushes[i].told.status != OPTCLIENT_OK) {
                fail("push %zu, after all is over, is refused: %s", i,
                     play.pushes[i].told.sentence);
            }
        }
    }
}

/* Whether what was told of a push is true of the shards in which it counts. */
static bool is_true(const struct told *told, const int counts[SHARDS])
{
    int least = counts[0], most = counts[0];
    for (size_t i = 1; i < SHARDS; i++) {
        least = counts[i] < least ? counts[i] : least;
        most = counts[i] > most ? counts[i] : most;
    }
    bool whole = least == most || play.order->policy == SHARD;
    if (least < 0 || most > 1 || !whole) {
        return false;
    }
    if (!told->wanted) {
        return true;
    }
    switch (told->result.fate) {
    case OPTCLIENT_APPLIED:
    case OPTCLIENT_DUPLICATE:
        return least == 1;
    case OPTCLIENT_DROPPED:
    case OPTCLIENT_SKIPPED:
        return told->status == OPTCLIENT_OK && most == 0;
    case OPTCLIENT_NOT_APPLIED:
        return told->status != OPTCLIENT_OK && most == 0;
    case OPTCLIENT_APPLIED_IN_PART:
        return told->status != OPTCLIENT_OK && least == 0 && most == 1;
    case OPTCLIENT_NOT_KNOWN:
        return told->status != OPTCLIENT_OK;
    default:
        return false; /* whoever waits for a push is told something */
    }
}

static void judge(char *trace, size_t size)
{
    static float weights[ELEMENTS];
    struct optclient_values values[TENSORS];
    spread(weights, values);
    if (play.parties[1].model == NULL ||
        !must(optclient_pull(play.parties[1].model, values, TENSORS, NULL, NULL),
              "B pulls")) {
        return;
    }
    size_t used = 0;
    for (size_t i = 0; i < play.push_count; i++) {
        const struct told *told = &play.pushes[i].told;
        int counts[SHARDS];
        for (size_t shard = 0; shard < SHARDS; shard++) {
            counts[shard] = (int)lrintf(-values[shard * OF_SHARD + i].values[0]);
        }
        const char *name =
            !told->wanted ? "nothing" : optclient_status_name(told->status);
        if (used < size) {
            used += (size_t)snprintf(trace + used, size - used, "%zu %s %d %d%d%d; ", i,
                                     name, (int)told->result.fate, counts[0], counts[1],
                                     counts[2]);
        }
        if (!is_true(told, counts)) {
            fail("of push %zu was told: %s, fate %d: %s. It counts %d, %d, %d times in "
                 "the three shards",
                 i, name, (int)told->result.fate, told->sentence, counts[0], counts[1],
                 counts[2]);
        }
    }
}

/* --------------------------------------------------------------------- play */

static void clean_up(void)
{
    for (size_t i = 0; i < play.push_count; i++) {
        if (play.pushes[i].call != NULL && !play.pushes[i].told.ended) {
            /* It ends with its client. */
            continue;
        }
        optclient_call_free(play.pushes[i].call);
        play.pushes[i].call = NULL;
    }
    for (int i = 0; i < PARTIES; i++) {
        sockets_isolate(i, false);
        optclient_close(play.parties[i].client);
    }
    for (size_t i = 0; i < play.push_count; i++) {
        optclient_call_free(play.pushes[i].call);
        free(play.pushes[i].gradient);
        free(play.pushes[i].weights);
    }
    stop_daemon();
    sockets_end();
    world_end();
}

bool order_play(const struct order *order, char *why, size_t size, char *trace,
                size_t trace_size)
{
    play = (struct play){ .order = order, .why = why, .why_size = size };
    trace[0] = '\0';
    world_begin();
    sockets_begin(order->transport == SHARED, order->chunks);
    start_daemon();
    if (appear(0, "A") && appear(1, "B")) {
        create();
        open_model(1);
    }
    if (!play.failed) {
        sockets_hold_pushes(0, true);
        push(0);
        for (size_t i = 0; i < order->count && !play.failed; i++) {
            happen(order->events[i]);
        }
    }
    if (!play.failed) {
        go_on();
    }
    if (!play.failed) {
        serve_all();
    }
    judge(trace, trace_size);
    clean_up();
    return !play.failed;
}
