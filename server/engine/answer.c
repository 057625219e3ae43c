/* answer — see answer.h. */
#include "server/engine/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/engine/commit.h"
#include "server/engine/events.h"
#include "server/engine/state.h"

struct opt_reply *answer_start(struct letter *letter, enum opt_message message)
{
    letter->reply = (struct opt_reply){ .id = letter->request.id, .message = message };
    return &letter->reply;
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

void answer_send(struct engine *engine, struct letter *letter)
{
    if (letter->peer->closed) {
        letter->silent = true;
    }
    remember_settled(letter);
    letters_append(&engine->outbox, letter);
}

void answer_nothing(struct engine *engine, struct letter *letter)
{
    letter->silent = true;
    answer_send(engine, letter);
}

void answer_part(struct engine *engine, struct letter *part)
{
    letters_append(&engine->outbox, part);
}

/* ---------------------------------------------------------------- errors */

void answer_refuse_for(struct engine *engine, struct letter *letter,
                       uint32_t retry_after_ms, const struct opt_error *error)
{
    letter_drop_pieces(letter);
    letter_refuse(letter, error);
    letter->reply.body.error.retry_after_ms = retry_after_ms;
    letters_append(&engine->refused, letter);
}

struct letter *answer_refused(struct engine *engine)
{
    return letters_take(&engine->refused);
}

void answer_failed(struct engine *engine, struct letter *letter)
{
    engine->counters.errors++;
    event_request_failed(letter);
    answer_send(engine, letter);
}

void answer_refuse(struct engine *engine, struct letter *letter,
                   const struct opt_error *error)
{
    answer_refuse_for(engine, letter, 0, error);
}

void answer_turn_away(struct engine *engine, struct letter *letter,
                      const struct opt_error *error)
{
    letter_drop_pieces(letter);
    letter_refuse(letter, error);
    if (letter->request.message != OPT_MESSAGE_HELLO) {
        letter->reply.id = 0;
    }
    letter->hang_up = true;
    /* It ends no push: that is cut off with the connection. */
    answer_failed(engine, letter);
}

void answer_fail(struct engine *engine, struct letter *letter, enum opt_status status,
                 enum opt_detail detail, const char *format, ...)
{
    char text[OPT_ERROR_TEXT];
    struct opt_error error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    opt_fail_as(&error, status, detail, "%s", text);
    answer_refuse(engine, letter, &error);
}

uint64_t answer_deadline(const struct engine *engine, const struct letter *letter)
{
    uint64_t limit = engine->settings.timeout_limit_ms;
    uint64_t timeout = letter->request.timeout_ms;
    if (timeout == 0 || timeout > limit) {
        timeout = limit;
    }
    return letter->arrived_ns + timeout * 1000000;
}

/* ---------------------------------------------------------------- the end of a turn */

static void send_home(struct letter *letter)
{
    struct peer *peer = letter->peer;
    if (letter->kind == LETTER_PART) { /* it was never among the peer's letters */
        letter_return(letter);
        return;
    }
    letter_return(letter);
    peer->letters--;
    if (peer->closed && peer->letters == 0) {
        visitor_fini(&peer->visitor);
        free(peer->identity);
        free(peer);
    }
}

void answer_flush(struct engine *engine)
{
    const struct recorder *recorder = engine->settings.recorder;
    bool asks = recorder != NULL && recorder->holds != NULL;
    for (struct letter *letter; (letter = letters_take(&engine->outbox)) != NULL;) {
        if (!asks || !recorder->holds(recorder->context, letter)) {
            send_home(letter);
        }
    }
}

void answer_release(struct letter *letter)
{
    letter->silent = letter->silent || letter->peer->closed;
    send_home(letter);
}
