/* engine — see engine.h. The way of a letter through it; thread.c has the thread. */
#include "server/turn/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/durable/recovery_view.h"
#include "server/durable/saving.h"
#include "server/engine/answer.h"
#include "server/engine/commit.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/messages/messages.h"
#include "server/rounds/frames.h"
#include "server/rounds/waiting.h"
#include "server/turn/removal.h"
#include "server/turn/settle.h"
#include "server/workers/barrier.h"
#include "server/workers/membership.h"

/* ---------------------------------------------------------------- peers */

struct peer *peer_new(const char *address)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer != NULL) {
        visitor_init(&peer->visitor, address, NULL);
        snprintf(peer->address, sizeof(peer->address), "%s", address);
    }
    return peer;
}

bool peer_identify(struct peer *peer, const char *identity)
{
    free(peer->identity);
    peer->identity = strdup(identity);
    visitor_init(&peer->visitor, peer->address, peer->identity);
    return peer->identity != NULL;
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

/* ---------------------------------------------------------------- letters */

/* Whether the peer may ask for that by its login; if not, it has been answered. */
static bool allow(struct engine *engine, struct letter *letter,
                  const struct message_row *row)
{
    struct access *access = engine->settings.access;
    struct peer *peer = letter->peer;
    struct opt_error error;
    if (access == NULL || row->role == ROLE_NONE) {
        return true;
    }
    enum opt_status status =
        access_check(access, &peer->visitor, peer->name, row->role,
                     opt_message_name(letter->request.message), &error);
    if (status == OPT_UNAUTHENTICATED) {
        answer_turn_away(engine, letter, &error);
    } else if (status != OPT_OK) {
        answer_refuse(engine, letter, &error);
    }
    return status == OPT_OK;
}

/* Whether the peer may make this request at all; if not, it has been answered. */
static bool admit(struct engine *engine, struct letter *letter,
                  const struct message_row *row)
{
    const struct peer *peer = letter->peer;
    const char *name = opt_message_name(letter->request.message);
    if (engine->stopping) {
        answer_fail(engine, letter, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING,
                    "the daemon is stopping");
        return false;
    }
    uint32_t retry_ms = 0;
    struct opt_error error;
    if (recovery_refuses(engine, letter, &retry_ms, &error)) {
        answer_refuse_for(engine, letter, retry_ms, &error);
        return false;
    }
    if (row == NULL) {
        answer_fail(engine, letter, OPT_UNIMPLEMENTED, OPT_DETAIL_NO_SERVICE,
                    "this daemon does not serve message %d",
                    (int)letter->request.message);
        return false;
    }
    if (row->needs_hello && !peer->greeted) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_HELLO,
                    "the first request of a connection must be hello, not %s", name);
        return false;
    }
    if (!allow(engine, letter, row)) {
        return false;
    }
    if (peer->greeted && !peer->observer && peer->worker == NULL) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION,
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
        answer_fail(engine, letter, OPT_PERMISSION_DENIED, OPT_DETAIL_OBSERVER,
                    "an observer may not %s; say hello with a worker's name", name);
        return false;
    }
    return true;
}

/* It has been looked at, if at all, and its answer has not left yet. */
static void forget_token(struct letter *letter)
{
    struct opt_hello *hello = &letter->request.body.hello;
    if (hello->token_size > 0) {
        explicit_bzero((uint8_t *)(uintptr_t)hello->token, hello->token_size);
        hello->token = NULL;
        hello->token_size = 0;
    }
}

static void serve(struct engine *engine, struct letter *letter)
{
    if (is_settled(letter)) {
        answer_nothing(engine, letter);
        return;
    }
    const struct message_row *row = engine->settings.row(letter->request.message);
    bool greets = letter->request.message == OPT_MESSAGE_HELLO;
    if (admit(engine, letter, row)) {
        row->serve(engine, letter);
    }
    if (greets) {
        forget_token(letter);
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
    return comes_last(letter) && (peer->queued > 0 || (letter->kind != LETTER_CLOSED &&
                                                       membership_in_use(peer)));
}

static void end_peer(struct engine *engine, struct letter *letter)
{
    struct peer *peer = letter->peer;
    waiting_closed(engine, peer);
    barrier_closed(engine, peer);
    saving_closed(engine, peer);
    removal_creator_gone(engine, peer);
    membership_closed(engine, peer, letter->lease_expired, letter->silent_ms);
    answer_nothing(engine, letter);
}

static void take(struct engine *engine, struct letter *letter)
{
    if (is_early(letter)) {
        letters_append(&engine->later, letter);
    } else if (letter->kind == LETTER_CLOSED) {
        end_peer(engine, letter);
    } else {
        serve(engine, letter);
    }
}

void engine_answered(struct engine *engine, struct letter *letter)
{
    letter->kind = LETTER_ANSWERED;
    mailbox_post(&engine->box, letter);
}

/* It is one of the peer's that the engine has had before. */
static void take_answered(struct engine *engine, struct letter *letter)
{
    letter->kind = LETTER_REQUEST;
    if (letter->reply.message == OPT_MESSAGE_ERROR) {
        answer_failed(engine, letter);
    } else {
        answer_send(engine, letter);
    }
}

void engine_receive(struct engine *engine, struct letter *letter)
{
    if (letter->kind == LETTER_ANSWERED) {
        take_answered(engine, letter);
        return;
    }
    struct peer *peer = letter->peer;
    peer->letters++;
    if (letter->kind == LETTER_CLOSED) {
        peer->closed = true;
    } else {
        engine->counters.requests++;
        engine->counters.mailbox_ns += engine->now_ns - letter->arrived_ns;
    }
    take(engine, letter);
}

/* Those that came last, once their turn has come. */
void engine_serve_later(struct engine *engine)
{
    struct letters later = engine->later;
    engine->later = (struct letters){ 0 };
    for (struct letter *letter; (letter = letters_take(&later)) != NULL;) {
        take(engine, letter);
    }
}

/* An error that ends a push tells what the push has come to. */
static void end_refused(struct engine *engine, struct letter *letter)
{
    frames_refused(engine, letter);
    answer_failed(engine, letter);
}

/* All that follows from what has been done in this turn. */
static void follow(struct engine *engine)
{
    for (;;) {
        struct letter *letter;
        struct model *model;
        if ((letter = answer_refused(engine)) != NULL) {
            end_refused(engine, letter);
        } else if ((letter = work_letter(engine)) != NULL) {
            serve(engine, letter);
        } else if ((model = work_changed(engine)) != NULL) {
            settle_model(engine, model);
        } else {
            return;
        }
    }
}

void engine_conclude(struct engine *engine)
{
    follow(engine);
    commit_turn(engine);
    answer_flush(engine);
}
