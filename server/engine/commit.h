/* commit — what becomes true, in order, before anybody is told of it.
 *
 * Everything that a model or a worker would have to be made of again is noted here at
 * the place where it is decided. The turn ends with commit_turn, and only then do
 * answers leave (answer.h): a recorder, of which the engine has one or none, has seen
 * by then whatever the answers tell.
 *
 *   COMMIT_MODEL --> COMMIT_READY --> { BATCH ... BATCH(last) --> STEP }... --> GONE
 *                                              '--> UNDONE (nothing has changed)
 *
 * A whole round is one batch. A round that is applied shard by shard is several, whose
 * last one may come late or bring nothing new; it is true as a whole, with its STEP.
 * The batches of an update are noted before it reads or overwrites any gradient
 * (gradient.h): what a recorder wants to keep of those it copies, or holds on to, then.
 * An update is made again with update_batch, update_add for each span, and
 * update_batch_start; the last batch with update_rest. Called in the engine's turn;
 * what is pointed to is lent for the call.
 */
#ifndef OPTIMD_SERVER_ENGINE_COMMIT_H
#define OPTIMD_SERVER_ENGINE_COMMIT_H

struct engine;
struct member;
struct model;
struct opt_settled;
struct worker;

enum commit_kind {
    COMMIT_MODEL,     /* a model has been made; it has no weights yet */
    COMMIT_READY,     /* its weights are there, and its slots */
    COMMIT_OPTIONS,   /* its specification is another one, from its next update on */
    COMMIT_BATCH,     /* a batch of its update begins: model->update tells which */
    COMMIT_STEP,      /* the update is over */
    COMMIT_UNDONE,    /* the sum was not finite, and the update did not happen */
    COMMIT_GONE,      /* it is deleted */
    COMMIT_WORKER,    /* a worker begins an incarnation, or is taken for dead */
    COMMIT_MEMBER,    /* a member has joined, rests, has left, is lost, is back, has
                         passed a barrier. (Its next push ends a rest, and is noted.) */
    COMMIT_PUSH,      /* a push of it is settled */
    COMMIT_FORGOTTEN, /* nothing is remembered of it any more */
};

struct commit {
    enum commit_kind kind;
    const struct model *model;         /* not of WORKER */
    const struct worker *worker;       /* of WORKER, MEMBER, PUSH, FORGOTTEN */
    const struct member *member;       /* of MEMBER, PUSH, FORGOTTEN */
    const struct opt_settled *settled; /* of PUSH */
};

struct recorder {
    void (*note)(void *context, const struct commit *commit);
    /* What has been noted since the last time is complete; answers follow. */
    void (*turn)(void *context);
    void *context;
};

void commit_model(struct engine *engine, enum commit_kind kind,
                  const struct model *model);
void commit_worker(struct engine *engine, const struct worker *worker);
void commit_member(struct engine *engine, enum commit_kind kind,
                   const struct member *member);
void commit_push(struct engine *engine, const struct member *member,
                 const struct opt_settled *settled);
void commit_turn(struct engine *engine);

#endif
