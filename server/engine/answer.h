/* answer — how a letter's answer leaves the engine.
 *
 * Whoever answers a letter writes its reply and gives it here. It stays in the outbox
 * until the end of the turn (answer_flush, thread.c): what the turn has changed is
 * complete by then, and an answer tells nobody of something that is only half done. An
 * error stands aside first (answer_refused), because it may be the end of a push of
 * which the letter is a frame, and then tells what the push has come to. In the
 * engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_ANSWER_H
#define OPTIMD_SERVER_ENGINE_ANSWER_H

#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct engine;
struct letter;

/* Start a reply: id and message set, everything else zero. */
struct opt_reply *answer_start(struct letter *letter, enum opt_message message);
/* Give a letter back to its loop; silently if its connection is gone. */
void answer_send(struct engine *engine, struct letter *letter);
/* Give it back without an answer. */
void answer_nothing(struct engine *engine, struct letter *letter);
/* A part of an answer whose letter comes later goes to its loop. */
void answer_part(struct engine *engine, struct letter *part);

/* Answer with an error; */
void answer_refuse(struct engine *engine, struct letter *letter,
                   const struct opt_error *error);
/* with one that says when trying again may help; */
void answer_refuse_for(struct engine *engine, struct letter *letter,
                       uint32_t retry_after_ms, const struct opt_error *error);
/* with one that ends the connection: its peer is not who it has to be. It has the
 * connection's id, so that what a client has asked for is asked again when it is
 * somebody; but for hello, which is answered itself; */
void answer_turn_away(struct engine *engine, struct letter *letter,
                      const struct opt_error *error);
/* with one of these parts. NONE as detail: the status says all that there is to do. */
void answer_fail(struct engine *engine, struct letter *letter, enum opt_status status,
                 enum opt_detail detail, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* The letter has been given its error (letter_fail): give it back. */
void answer_failed(struct engine *engine, struct letter *letter);

/* When the request must have been answered. */
uint64_t answer_deadline(const struct engine *engine, const struct letter *letter);

/* The next letter that was answered with an error in this turn, or NULL. It goes on to
 * answer_failed. */
struct letter *answer_refused(struct engine *engine);
/* The turn is over: all answers go to their loops, but those that the recorder holds
 * back (commit.h). */
void answer_flush(struct engine *engine);
/* One that was held back leaves. */
void answer_release(struct letter *letter);

#endif
