/* events — what the log tells of models: who made, changed and deleted what, who came
 * and went, which rounds failed, and which requests were refused and why.
 *
 * Each is one line at level info, and each kind at most OPT_LOG_BURST lines a second,
 * so that no peer can fill the log. Functions that write no line cost one comparison.
 * Called by whoever has the engine's turn.
 */
#ifndef OPTIMD_SERVER_ENGINE_EVENTS_H
#define OPTIMD_SERVER_ENGINE_EVENTS_H

#include <stdint.h>

struct letter;
struct member;
struct model;
struct peer;

void event_model_created(const struct model *model, const struct peer *by);
void event_model_deleted(const struct model *model, const struct peer *by,
                         const char *why);
/* From the step on the model has the options of the specification. */
void event_options_set(const char *model, const struct peer *by, uint64_t step,
                       const char *specification);

void event_worker_joined(const struct member *member);
void event_worker_left(const struct member *member);
void event_worker_lost(const struct member *member);

/* The open round of the model came to nothing. */
void event_round_failed(const struct model *model, const char *why);

/* The letter's answer is an error: a deadline that has passed, memory that is not
 * there, a push that cannot be applied. Each status is a kind of its own. */
void event_request_failed(const struct letter *letter);

#endif
