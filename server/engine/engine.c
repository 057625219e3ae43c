/* engine — see engine.h. The way of a letter through it; thread.c has the thread. */
#include "server/engine/engine.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/events.h"
#include "server/engine/flow.h"
#include "server/engine/frames.h"
#include "server/engine/inside.h"
#include "server/engine/lease.h"
#include "server/engine/model.h"
#include "server/engine/worker.h"
#include "server/messages/messages.h"

/* ---------------------------------------------------------------- peers */

struct peer *peer_new(const char *address)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer != NULL) {
        snprintf(peer->address, sizeof(peer->address), "%s", address);
    }
    return peer;
}

/* A push is answered once. If that happens before its last frame has come, the rest is
 * to be swallowed. */
static void remember_settled(const struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    struct peer *peer = letter->peer;
    if (push != NULL && !push->last && !letter->silent) {
        peer->settled[peer->settled_next] = letter->request.id;
        peer->settled_next = (peer->settled_next + 1) % PEER_SETTLED;
    }
}

/* Whether the letter is a later frame of a push that has been answered. */
static bool is_settled(const struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    struct peer *peer = letter->peer;
    for (size_t i = 0; push != NULL && i < PEER_SETTLED; i++) {
        if (peer->settled[i] == letter->request.id) {
            if (push->frame == 0 || push->last) {
                peer->settled[i] = 0;
            }
            return push->frame > 0;
        }
    }
    return false;
}

/* ---------------------------------------------------------------- answers */

void engine_return(struct engine *engine, struct letter *letter)
{
    struct peer *peer = letter->peer;
    (void)engine;
    if (peer->closed) {
        letter->silent = true;
    }
    remember_settled(letter);
    letter_return(letter);
    peer->letters--;
    if (peer->closed && peer->letters == 0) {
        free(peer);
    }
}

void engine_silence(struct engine *engine, struct letter *letter)
{
    letter->silent = true;
    engine_return(engine, letter);
}

void engine_refuse_for(struct engine *engine, struct letter *letter,
                       uint32_t retry_after_ms, const struct opt_error *error)
{
    struct opt_error told = *error;
    struct model *rest = frames_refused(engine, letter, &told);
    letter_drop_pieces(letter);
    letter_refuse(letter, &told);
    letter->reply.body.error.retry_after_ms = retry_after_ms;
    engine_failed(engine, letter);
    if (rest != NULL) {
        flow_settle(engine, rest);
    }
}

void engine_failed(struct engine *engine, struct letter *letter)
{
    engine->counters.errors++;
    event_request_failed(letter);
    engine_return(engine, letter);
}

void engine_refuse(struct engine *engine, struct letter *letter,
                   const struct opt_error *error)
{
    engine_refuse_for(engine, letter, 0, error);
}

void engine_fail(struct engine *engine, struct letter *letter, enum opt_status status,
                 enum opt_detail detail, const char *format, ...)
{
    char text[OPT_ERROR_TEXT];
    struct opt_error error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    opt_fail_as(&error, status, detail, "%s", text);
    engine_refuse(engine, letter, &error);
}

struct opt_reply *engine_reply(struct letter *letter, enum opt_message message)
{
    letter->reply = (struct opt_reply){ .id = letter->request.id, .message = message };
    return &letter->reply;
}

uint64_t engine_deadline(const struct engine *engine, const struct letter *letter)
{
    uint64_t limit = engine->settings.timeout_limit_ms;
    uint64_t timeout = letter->request.timeout_ms;
    if (timeout == 0 || timeout > limit) {
        timeout = limit;
    }
    return letter->arrived_ns + timeout * 1000000;
}

/* ---------------------------------------------------------------- models */

static size_t place_of(const struct engine *engine, uint32_t number)
{
    size_t low = 0, high = engine->model_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (engine->numbered[middle]->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct model *engine_model(struct engine *engine, struct letter *letter,
                           uint32_t number)
{
    size_t place = place_of(engine, number);
    if (place < engine->model_count && engine->numbered[place]->number == number) {
        return engine->numbered[place];
    }
    engine_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                "there is no model with the number %" PRIu32
                "; numbers come with the answer to create and open, and end with the "
                "model or the daemon",
                number);
    return NULL;
}

struct model *engine_model_named(struct engine *engine, struct letter *letter,
                                 const char *name)
{
    struct model *model = names_find(&engine->models, name);
    if (model != NULL) {
        return model;
    }
    size_t steps;
    const char *nearest = names_nearest(&engine->models, name, &steps);
    engine_worked(engine, steps);
    if (engine->model_count == 0) {
        engine_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\", nor any other", name);
    } else if (nearest == NULL) {
        engine_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\", nor one of the %zu with a name like it",
                    name, engine->model_count);
    } else {
        engine_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\"; the nearest of %zu is \"%s\"", name,
                    engine->model_count, nearest);
    }
    return NULL;
}

bool engine_add_model(struct engine *engine, struct model *model)
{
    if (engine->model_count == engine->model_capacity) {
        size_t capacity = engine->model_capacity == 0 ? 16 : engine->model_capacity * 2;
        struct model **numbered =
            realloc(engine->numbered, capacity * sizeof(struct model *));
        if (numbered == NULL) {
            return false;
        }
        engine->numbered = numbered;
        engine->model_capacity = capacity;
    }
    if (engine->last_number == UINT32_MAX ||
        !names_add(&engine->models, model->name, model)) {
        return false;
    }
    model->number = ++engine->last_number;
    engine->numbered[engine->model_count++] = model;
    return true;
}

void engine_remove_model(struct engine *engine, struct model *model)
{
    size_t place = place_of(engine, model->number);
    engine->model_count--;
    memmove(engine->numbered + place, engine->numbered + place + 1,
            (engine->model_count - place) * sizeof(struct model *));
    names_remove(&engine->models, model->name);
}

/* ---------------------------------------------------------------- letters */

/* Whether the peer may make this request at all; if not, it has been answered. */
static bool admit(struct engine *engine, struct letter *letter,
                  const struct message_row *row)
{
    const struct peer *peer = letter->peer;
    const char *name = opt_message_name(letter->request.message);
    if (engine->stopping) {
        engine_fail(engine, letter, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING,
                    "the daemon is stopping");
        return false;
    }
    if (row == NULL) {
        engine_fail(engine, letter, OPT_UNIMPLEMENTED, OPT_DETAIL_NO_SERVICE,
                    "this daemon does not serve message %d",
                    (int)letter->request.message);
        return false;
    }
    if (row->needs_hello && !peer->greeted) {
        engine_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_HELLO,
                    "the first request of a connection must be hello, not %s", name);
        return false;
    }
    if (peer->greeted && !peer->observer && peer->worker == NULL) {
        engine_fail(engine, letter, OPT_FAILED_PRECONDITION,
                    peer->continued ? OPT_DETAIL_CONTINUED : OPT_DETAIL_TAKEN_OVER,
                    peer->continued
                        ? "worker \"%s\" (incarnation %" PRIu64
                          ") goes on over another connection"
                        : "worker \"%s\" was taken over by another process, so "
                          "incarnation %" PRIu64 " is stale",
                    peer->name, peer->incarnation);
        return false;
    }
    if (row->needs_worker && peer->observer) {
        engine_fail(engine, letter, OPT_PERMISSION_DENIED, OPT_DETAIL_OBSERVER,
                    "an observer may not %s; say hello with a worker's name", name);
        return false;
    }
    return true;
}

void engine_serve(struct engine *engine, struct letter *letter)
{
    if (is_settled(letter)) {
        engine_silence(engine, letter);
        return;
    }
    const struct message_row *row = message_row(letter->request.message);
    if (admit(engine, letter, row)) {
        row->serve(engine, letter);
    }
}

/* Some letters end all that a peer has to do with the engine; they come after what it
 * has in the queues of busy models; goodbye between batches that read what it sends. */
static bool comes_last(const struct letter *letter)
{
    return letter->kind == LETTER_CLOSED ||
           letter->request.message == OPT_MESSAGE_GOODBYE;
}

/* Whether such a letter must wait. */
static bool is_early(const struct letter *letter)
{
    const struct peer *peer = letter->peer;
    return comes_last(letter) &&
           (peer->queued > 0 || (letter->kind != LETTER_CLOSED && lease_in_use(peer)));
}

static void end_peer(struct engine *engine, struct letter *letter)
{
    struct peer *peer = letter->peer;
    lease_closed(engine, peer, letter->lease_expired, letter->silent_ms);
    engine_silence(engine, letter);
}

static void receive_later(struct engine *engine, struct letter *letter)
{
    letter->next = NULL;
    if (engine->later_first == NULL) {
        engine->later_first = letter;
    } else {
        engine->later_last->next = letter;
    }
    engine->later_last = letter;
}

void engine_receive(struct engine *engine, struct letter *letter)
{
    struct peer *peer = letter->peer;
    peer->letters++;
    if (letter->kind == LETTER_CLOSED) {
        peer->closed = true;
    } else {
        engine->counters.requests++;
        engine->counters.mailbox_ns += engine->now_ns - letter->arrived_ns;
    }
    if (is_early(letter)) {
        receive_later(engine, letter);
    } else if (letter->kind == LETTER_CLOSED) {
        end_peer(engine, letter);
    } else {
        engine_serve(engine, letter);
    }
}

/* Those that came last, once their turn has come. */
void engine_serve_later(struct engine *engine)
{
    struct letter *letter = engine->later_first;
    engine->later_first = NULL;
    while (letter != NULL) {
        struct letter *next = letter->next;
        if (is_early(letter)) {
            receive_later(engine, letter);
        } else if (letter->kind == LETTER_CLOSED) {
            end_peer(engine, letter);
        } else {
            engine_serve(engine, letter);
        }
        letter = next;
    }
}
