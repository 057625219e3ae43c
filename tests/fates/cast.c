/* cast — see cast.h. */
#include "tests/fates/cast.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"
#include "server/base/letter.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/messages/messages.h"
#include "server/model/model.h"
#include "server/net/limits.h"
#include "server/net/loop.h"
#include "server/turn/engine.h"
#include "tests/fates/judge.h"
#include "tests/fates/sockets.h"
#include "tests/fates/world.h"
#include "tests/fates/wraps.h"

enum {
    ELEMENTS = DENSE - 1 + OPT_BLOCK,
    USED_AGAIN = 1000, /* what memory holds whose push is over */
    HEADER_BYTES = 4 << 10,
    FRAME_BYTES = HEADER_BYTES + OPT_FRAME_BEGIN_MAX + OPT_BLOCK * (int)sizeof(float)
};

struct cast cast;

void cast_fail(const char *format, ...)
{
    if (!cast.failed) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(cast.why, cast.why_size, format, arguments);
        va_end(arguments);
        cast.failed = true;
    }
}

/* ------------------------------------------------- refusing a copy of a push */

static bool refuses_data, has_no_room;

void cast_refuse_data(bool refuse)
{
    refuses_data = refuse;
}

void cast_leave_no_room(bool none)
{
    has_no_room = none;
}

bool __wrap_letter_data(struct letter *letter, size_t size)
{
    if (refuses_data && letter_push(letter) != NULL) {
        refuses_data = false;
        return false;
    }
    return __real_letter_data(letter, size);
}

enum conn_pause __wrap_charge_letter(struct conn *conn, struct letter *letter,
                                     size_t size)
{
    if (has_no_room && letter_push(letter) != NULL) {
        return PAUSE_BUDGET;
    }
    return __real_charge_letter(conn, letter, size);
}

/* ------------------------------------------------------------------- daemon */

static void on_dialled(void *loops, int socket)
{
    loops_deal(loops, socket, cast.is_full);
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
        .row = message_row,
    };
    const struct net_limits limits = {
        .frame = { .frame_bytes = settings.max_frame_bytes,
                   .header_bytes = settings.max_header_bytes },
        .connections = 100,
        .table_bytes = 1 << 20,
        .connection_bytes = 16 << 20,
        .inflight_bytes = 64 << 20,
        .hello_ms = 10000,
        .frame_ms = 60000,
        .frame_rate = 1000,
        .write_ms = 30000,
        .write_rate = 1000,
        .idle_ms = 600000,
        .room_ms = ROOM_MS,
        .shares_memory = cast.order->transport == SHARED,
        .congestion = "",
    };
    if (engine_start(&settings, &cast.engine, &error) != OPT_OK ||
        loops_start(&limits, 1, cast.engine, &cast.loops, &error) != OPT_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    sockets_listen(on_dialled, cast.loops);
}

/* As main does at SIGTERM. The weights outlive what changes them. */
void cast_stop_daemon(void)
{
    if (cast.engine == NULL) {
        return;
    }
    sockets_listen(NULL, NULL);
    loops_quiet(cast.loops);
    engine_stop(cast.engine);
    loops_stop(cast.loops);
    cast_count();
    engine_free(cast.engine);
    cast.engine = NULL;
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
        cast_fail("%s: %s: %s", what, optclient_status_name(status), optclient_error());
    }
    return status == OPTCLIENT_OK;
}

/* Which tensor of the model a dense one is. */
static size_t tensor_of(size_t dense)
{
    return dense + dense / OF_SHARD;
}

/* A party has the model, and may have its gradients in the library's memory. */
static void begin_training(struct party *party)
{
    if (cast.order->in_place && party->model != NULL) {
        party->large = optclient_gradient(party->model, tensor_of(LARGE));
    }
}

void cast_open(int who)
{
    struct party *party = &cast.parties[who];
    party->model = NULL;
    must(optclient_open(party->client, "m", 1, &party->model),
         who == 1 ? "B opens" : "A opens");
    begin_training(party);
}

void cast_close(struct party *party)
{
    party->large = NULL; /* before it goes */
    optclient_model_close(party->model);
    party->model = NULL;
    world_settle();
}

static bool appear(int who, const char *name)
{
    bool shared = cast.order->transport == SHARED;
    struct optclient_options options = {
        .worker = name, .backoff_min_ms = 10, .backoff_max_ms = 200, .checksum = !shared
    };
    world_belongs(who);
    bool here = must(optclient_connect(shared ? "unix:/optimd" : "127.0.0.1:7070",
                                       &options, &cast.parties[who].client),
                     "connect");
    world_belongs(WORLD_NOBODY);
    return here;
}

void cast_kill_a(void)
{
    cast_hear();
    sockets_isolate(0, true);
    sockets_cut(0);
    cast.pushes[0].told.wanted = cast.pushes[0].told.ended;
    cast.pull.told.wanted = cast.pull.told.ended;
}

void cast_appear_again(void)
{
    cast.living = 2 + cast.others++;
    if (appear(cast.living, "A")) {
        cast_open(cast.living);
    }
}

static void create(void)
{
    static char names[TENSORS][8];
    static struct optclient_tensor tensors[TENSORS];
    static const uint64_t one[] = { 1, 1 }, block = OPT_BLOCK;
    for (size_t i = 0; i < TENSORS; i++) {
        bool sparse = (i + 1) % (OF_SHARD + 1) == 0;
        snprintf(names[i], sizeof(names[i]), "t%zu", i);
        tensors[i] = (struct optclient_tensor){
            .name = names[i],
            .shape = i == tensor_of(LARGE) ? &block : one,
            .rank = sparse ? 2 : 1,
            .sparse = sparse,
        };
    }
    struct optclient_policy policy = policy_of(cast.order->policy);
    must(optclient_create(cast.parties[0].client, "m",
                          "sgd(lr=1, aggregate=sum, nonfinite=propagate)", &policy,
                          tensors, TENSORS, NULL, &cast.parties[0].model),
         "A creates");
    begin_training(&cast.parties[0]);
}

/* ------------------------------------------------------------------- pushes */

/* All that are pushed, in memory for ELEMENTS values. */
static void spread(float *memory, struct optclient_values values[DENSE])
{
    for (size_t i = 0; i < DENSE; i++) {
        values[i] =
            (struct optclient_values){ .tensor = tensor_of(i), .values = memory };
        memory += i == LARGE ? (int)OPT_BLOCK : 1;
    }
}

static void spread_gradient(const struct pushed *push,
                            struct optclient_values values[DENSE])
{
    spread(push->gradient, values);
    if (push->large != NULL) {
        values[LARGE].values = push->large;
    }
}

/* The push is over, so its memory is the worker's again. If it were read once more, the
 * weights would tell. */
static void use_again(const struct pushed *push)
{
    struct optclient_values values[DENSE];
    spread_gradient(push, values);
    bool gone = push->large != NULL && cast.parties[push->who].large != push->large;
    for (size_t i = 0; i < DENSE; i++) {
        size_t count = i != LARGE ? 1 : gone ? 0 : OPT_BLOCK;
        for (size_t k = 0; k < count; k++) {
            values[i].values[k] = USED_AGAIN;
        }
    }
}

/* Between any two steps of library and daemon. */
static void use_all_again(void)
{
    for (size_t i = 0; i < cast.push_count; i++) {
        struct pushed *push = &cast.pushes[i];
        if (!push->used_again && push->call != NULL &&
            optclient_call_done(push->call)) {
            push->used_again = true;
            use_again(push);
        }
    }
}

/* Ask the library for it, and do not wait if call is given. */
static enum optclient_status ask(struct pushed *push, struct optclient_call **call)
{
    static const struct optclient_push_options options = { .timeout_ms = PUSH_MS };
    struct optclient_model *model = cast.parties[push->who].model;
    struct optclient_values values[DENSE], pulled[DENSE];
    spread_gradient(push, values);
    if (push->weights == NULL) {
        return call != NULL
                   ? optclient_push_start(model, values, DENSE, &options, NULL, NULL,
                                          call)
                   : optclient_push(model, values, DENSE, &options, &push->told.result);
    }
    spread(push->weights, pulled);
    return call != NULL
               ? optclient_push_pull_start(model, values, DENSE, &options, pulled,
                                           DENSE, NULL, NULL, NULL, call)
               : optclient_push_pull(model, values, DENSE, &options, pulled, DENSE,
                                     NULL, &push->told.result);
}

static void take(struct told *told, enum optclient_status status)
{
    told->status = status;
    snprintf(told->sentence, sizeof(told->sentence), "%s",
             status != OPTCLIENT_OK ? optclient_error() : "");
    told->ended = true;
}

static void *wait_in_library(void *push)
{
    take(&((struct pushed *)push)->told, ask(push, NULL));
    use_again(push);
    return NULL;
}

size_t cast_push(int who)
{
    size_t number = cast.push_count++;
    struct pushed *push = &cast.pushes[number];
    *push = (struct pushed){ .who = who,
                             .told.wanted = true,
                             .large = cast.parties[who].large };
    struct optclient_values values[DENSE];
    push->gradient = calloc(ELEMENTS, sizeof(*push->gradient));
    spread_gradient(push, values);
    memset(values[LARGE].values, 0, OPT_BLOCK * sizeof(float));
    for (size_t shard = 0; shard < SHARDS; shard++) {
        values[shard * OF_SHARD + number].values[0] = 1;
    }
    values[LARGE].values[number] = 1;
    if (number == 0 && order_pulls(cast.order)) {
        push->weights = calloc(ELEMENTS, sizeof(*push->weights));
    }
    if (number == 0 && cast.order->blocks) {
        push->in_thread =
            pthread_create(&push->thread, NULL, wait_in_library, push) == 0;
    } else {
        enum optclient_status status = ask(push, &push->call);
        if (status != OPTCLIENT_OK) {
            push->call = NULL;
            take(&push->told, status);
        }
    }
    world_settle();
    return number;
}

void cast_hear(void)
{
    for (size_t i = 0; i < cast.push_count; i++) {
        struct pushed *push = &cast.pushes[i];
        if (!push->told.ended && push->call != NULL &&
            optclient_call_done(push->call)) {
            take(&push->told, optclient_call_wait(push->call, &push->told.result));
        }
    }
    struct pulled *pull = &cast.pull;
    if (!pull->told.ended && pull->call != NULL && optclient_call_done(pull->call)) {
        take(&pull->told, optclient_call_wait(pull->call, &pull->told.result));
    }
}

void cast_pull_of_a(void)
{
    static const struct optclient_pull_options options = { .timeout_ms = PUSH_MS };
    struct pulled *pull = &cast.pull;
    struct optclient_values values[DENSE];
    pull->told.wanted = true;
    pull->weights = calloc(ELEMENTS, sizeof(*pull->weights));
    spread(pull->weights, values);
    enum optclient_status status = optclient_pull_start(
        cast.parties[0].model, values, DENSE, &options, NULL, NULL, &pull->call);
    if (status != OPTCLIENT_OK) {
        pull->call = NULL;
        take(&pull->told, status);
    }
    world_settle();
}

bool cast_pull_has_ended(void)
{
    cast_hear();
    return cast.pull.told.ended;
}

bool cast_has_ended(size_t push)
{
    cast_hear();
    return cast.pushes[push].told.ended;
}

/* -------------------------------------------------------------------- weights */

/* What a tensor's weights are when nobody can pull any more. */
static const float *weights_left(size_t tensor)
{
    const struct model *model = cast.engine->numbered[0];
    const struct tensor *one = &model->tensors[tensor];
    const struct shard *shard = &model->shards[one->shard];
    return version_values(shard->current) + (one->at - shard->at);
}

void cast_count_in(const float *weights, size_t push, int counts[SHARDS])
{
    struct optclient_values values[DENSE];
    spread((float *)(uintptr_t)weights, values);
    for (size_t shard = 0; shard < SHARDS; shard++) {
        counts[shard] = (int)lrintf(-values[shard * OF_SHARD + push].values[0]);
    }
    int in_large = (int)lrintf(-values[LARGE].values[push]);
    if (in_large != counts[LARGE / OF_SHARD]) {
        cast_fail("push %zu counts %d times in the large tensor, and %d times in the "
                  "others of that shard",
                  push, in_large, counts[LARGE / OF_SHARD]);
    }
}

bool cast_count(void)
{
    static float weights[ELEMENTS];
    struct optclient_values values[DENSE];
    spread(weights, values);
    if (cast.engine == NULL) {
        return true; /* it was done */
    }
    if (cast.engine->stopping) {
        for (size_t i = 0; i < DENSE; i++) {
            memcpy(values[i].values, weights_left(tensor_of(i)),
                   (i == LARGE ? OPT_BLOCK : 1) * sizeof(float));
        }
    } else if (cast.parties[1].model == NULL ||
               !must(optclient_pull(cast.parties[1].model, values, DENSE, NULL, NULL),
                     "B pulls")) {
        return false;
    }
    for (size_t i = 0; i < cast.push_count; i++) {
        cast_count_in(weights, i, cast.counts[i]);
    }
    return true;
}

/* ------------------------------------------------------------- begin and end */

void cast_begin(const struct order *order, char *why, size_t size)
{
    cast = (struct cast){ .order = order, .why = why, .why_size = size };
    refuses_data = has_no_room = false;
    world_begin();
    sockets_begin(order->transport == SHARED, order->chunks);
    start_daemon();
    world_watch(use_all_again);
    if (appear(0, "A") && appear(1, "B")) {
        create();
        cast_open(1);
    }
}

void cast_leave(void)
{
    for (int i = 0; i < PARTIES; i++) {
        sockets_isolate(i, false);
        cast.parties[i].large = NULL;
        optclient_close(cast.parties[i].client);
        cast.parties[i] = (struct party){ 0 };
    }
}

void cast_end(void)
{
    world_watch(NULL);
    for (size_t i = 0; i < cast.push_count; i++) {
        if (cast.pushes[i].told.ended) { /* others end with their client */
            optclient_call_free(cast.pushes[i].call);
            cast.pushes[i].call = NULL;
        }
    }
    optclient_call_free(cast.pull.told.ended ? cast.pull.call : NULL);
    cast_leave();
    for (size_t i = 0; i < cast.push_count; i++) {
        struct pushed *push = &cast.pushes[i];
        if (push->in_thread) {
            pthread_join(push->thread, NULL);
        }
        optclient_call_free(push->call);
        free(push->gradient);
        free(push->weights);
    }
    optclient_call_free(cast.pull.told.ended ? NULL : cast.pull.call);
    free(cast.pull.weights);
    cast_stop_daemon();
    sockets_end();
    world_end();
}
