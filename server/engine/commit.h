/* commit — what becomes true, in order, before anybody is told of it.
 *
 * Everything that a model or a worker would have to be made of again is noted here at
 * the place where it is decided. The turn ends with commit_turn, and only then do
 * answers leave (answer.h): a recorder, of which the engine has one or none, has seen
 * by then whatever the answers tell.
 *
 *   COMMIT_MODEL --> WEIGHTS ... READY --> { BATCH ... BATCH(last) --> STEP }... -->
 * GONE
 *                                                   '--> UNDONE (nothing has changed)
 *
 * A whole round is one batch. A round that is applied shard by shard is several, whose
 * last one may come late or bring nothing new; it is true as a whole, with its STEP.
 * A recorder that wants to make updates again says so (writes), and takes each with its
 * STEP, as it was written down while it ran (server/update/written.h). A change of
 * options is noted when it is stated, and again when it takes effect: right after that,
 * or after the STEP of the update before. Called in the engine's turn; what is pointed
 * to is lent for the call.
 */
#ifndef OPTIMD_SERVER_ENGINE_COMMIT_H
#define OPTIMD_SERVER_ENGINE_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/status.h"

struct change;
struct engine;
struct letter;
struct member;
struct model;
struct opt_segment;
struct opt_settled;
struct worker;

enum commit_kind {
    COMMIT_MODEL,   /* a model has been made; it has no weights yet */
    COMMIT_WEIGHTS, /* values are assigned to a part of one of its tensors */
    COMMIT_READY,   /* all of its weights are there, and its slots */
    COMMIT_STATED,  /* a change of its specification is stated, for an update to come */
    COMMIT_OPTIONS, /* its specification is another one, from its next update on */
    COMMIT_BATCH,   /* a batch of its update begins: model->update tells which */
    COMMIT_STEP,    /* the update is over: written_take has it */
    COMMIT_UNDONE,  /* the sum was not finite, and the update did not happen */
    COMMIT_GONE,    /* it is deleted */
    COMMIT_WORKER,  /* a worker begins an incarnation, or is taken for dead */
    COMMIT_MEMBER,  /* a member has joined, rests, has left, is lost, is back, has
                       passed a barrier. (Its next push ends a rest, and is noted.) */
    COMMIT_PUSH,    /* a push of it is settled */
    COMMIT_FORGOTTEN, /* nothing is remembered of it any more */
};

struct commit {
    enum commit_kind kind;
    const struct model *model;         /* not of WORKER */
    const struct worker *worker;       /* of WORKER, MEMBER, PUSH, FORGOTTEN */
    const struct member *member;       /* of MEMBER, PUSH, FORGOTTEN */
    const struct opt_settled *settled; /* of PUSH */
    const struct opt_segment *segment; /* of WEIGHTS: where they go, never rows, */
    enum opt_dtype dtype;              /* what they are, */
    const void *values;                /* and segment->count of them */
    const struct change *stated;       /* of STATED (server/model/change.h) */
};

struct recorder {
    void (*note)(void *context, const struct commit *commit);
    /* What has been noted since the last time is complete, if anything was; answers
     * follow. */
    void (*turn)(void *context);
    /* Whether the model's updates are to be written down: asked once, while the model
     * is made, when its name and what its creator wants of it are known. NULL: none
     * are. */
    bool (*writes)(void *context, const struct model *model);
    /* Whether an update of such a model may begin now that will write at most so many
     * bytes. If not the round waits, and its pushes with it, until their deadlines;
     * whoever says no calls work_settle(model) later, when it may be asked again. NULL:
     * always. */
    bool (*room)(void *context, struct model *model, size_t bytes);
    /* A round of the model waits for memory of updates that were taken: some had better
     * be given back soon (written_free). NULL: it comes when it comes. */
    void (*awaited)(void *context, struct model *model);
    /* An answer of this turn must not leave yet: the recorder has the letter, and gives
     * it to answer_release. NULL: all leave. */
    bool (*holds)(void *context, struct letter *letter);
    /* Whether a push to the model can be taken at present; if not, when to try again.
     * NULL: always. */
    enum opt_status (*admits)(void *context, const struct model *model,
                              uint32_t *retry_ms, struct opt_error *error);
    void *context;
};

/* What the engine's recorder says to a push, or OPT_OK. */
enum opt_status commit_admits(const struct engine *engine, const struct model *model,
                              uint32_t *retry_ms, struct opt_error *error);

void commit_model(struct engine *engine, enum commit_kind kind,
                  const struct model *model);
void commit_weights(struct engine *engine, const struct model *model,
                    const struct opt_segment *segment, enum opt_dtype dtype,
                    const void *values);
void commit_stated(struct engine *engine, const struct model *model,
                   const struct change *change);
/* What the recorder says (struct recorder). */
bool commit_writes(const struct engine *engine, const struct model *model);
bool commit_room(const struct engine *engine, struct model *model, size_t bytes);
void commit_awaited(const struct engine *engine, struct model *model);
void commit_worker(struct engine *engine, const struct worker *worker);
void commit_member(struct engine *engine, enum commit_kind kind,
                   const struct member *member);
void commit_push(struct engine *engine, const struct member *member,
                 const struct opt_settled *settled);
void commit_turn(struct engine *engine);

#endif
