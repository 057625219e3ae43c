/* serve — the serve functions of all messages, and what some of them share.
 *
 * Each is called by the engine for a letter that its row has admitted; see
 * messages.h. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_MESSAGES_SERVE_H
#define OPTIMD_SERVER_MESSAGES_SERVE_H

#include <stdbool.h>

#include "common/wire.h"

struct engine;
struct letter;
struct model;

void serve_hello(struct engine *engine, struct letter *letter);
void serve_create(struct engine *engine, struct letter *letter);
void serve_open(struct engine *engine, struct letter *letter);
void serve_assign(struct engine *engine, struct letter *letter);
void serve_list(struct engine *engine, struct letter *letter);
void serve_describe(struct engine *engine, struct letter *letter);
void serve_push(struct engine *engine, struct letter *letter);
void serve_push_pull(struct engine *engine, struct letter *letter);
void serve_pull(struct engine *engine, struct letter *letter);
void serve_wait(struct engine *engine, struct letter *letter);
void serve_statistics(struct engine *engine, struct letter *letter);
void serve_leave(struct engine *engine, struct letter *letter);
void serve_heartbeat(struct engine *engine, struct letter *letter);
void serve_goodbye(struct engine *engine, struct letter *letter);
void serve_delete(struct engine *engine, struct letter *letter);
void serve_set(struct engine *engine, struct letter *letter);
void serve_barrier(struct engine *engine, struct letter *letter);
void serve_rest(struct engine *engine, struct letter *letter);
void serve_checkpoint(struct engine *engine, struct letter *letter);
void serve_reload(struct engine *engine, struct letter *letter);
void serve_share(struct engine *engine, struct letter *letter);

/* Answer create or open, after joining the model if that is asked for. False if it
 * could not be joined; then the letter has been answered with the error. */
bool serve_model_reply(struct engine *engine, struct letter *letter,
                       struct model *model, bool join, bool created);
/* What lists and descriptions say of a model. Text is borrowed from it. */
struct opt_model_entry serve_summary(const struct model *model);

#endif
