/* gate — answers that wait until what they tell is on disk.
 *
 * At the end of a turn the engine asks the recorder about each of its answers
 * (server/engine/answer.h), and that asks here. An answer waits until the record of its
 * turn is written (then the system has it, and nothing is lost if this process is
 * killed), and of a model with durability ALWAYS until it is durable. So does the
 * answer to a push that came again, for the records of its model; it tells what has
 * been before. Answers leave in the order of their records.
 *
 * While the disk fails nobody waits for it. A push to a model with ALWAYS is then
 * refused before it is applied; one that has been applied is answered with an error
 * that says so, and that it may be sent again to be answered when it is durable. In the
 * engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_GATE_H
#define OPTIMD_SERVER_DURABLE_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct durable;
struct engine;
struct letter;
struct model;

enum opt_status gate_open(struct durable *durable, struct opt_error *error);
void gate_close(struct durable *durable);

/* True: the gate has the letter, and will give it to answer_release. False: it may
 * leave. record: index of what the turn has recorded, 0: nothing; always: some of it is
 * of a model with durability ALWAYS. */
bool gate_takes(struct durable *durable, struct letter *letter, uint64_t record,
                bool always);
/* Whether a push to the model can be taken now. OPT_RESOURCE_EXHAUSTED, NOT_DURABLE. */
enum opt_status gate_admits(struct durable *durable, const struct model *model,
                            uint32_t *retry_ms, struct opt_error *error);
/* A wait that has its answer, and is to have it when all that the model has come to is
 * durable. Takes the letter. */
void gate_hold(struct durable *durable, const struct model *model,
               struct letter *letter);

/* The disk has come further, or fails, or works again. */
void gate_settle(struct durable *durable);
/* A checkpoint of the model is there. */
void gate_saved(struct durable *durable, const struct model *model);
bool gate_is_empty(const struct durable *durable);
/* The daemon is stopping, and nothing more becomes durable: who still waits is told. */
void gate_open_all(struct durable *durable);

#endif
