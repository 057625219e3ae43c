/* push — one worker's gradient: the frames it came in, and where each block of it is.
 *
 * A push names whole tensors, in segments of any order over any number of frames. The
 * letters of the frames are kept, and a table says for each block of the model where in
 * them its values are, so that nothing is copied and nothing is counted twice. Rows of
 * sparse tensors are kept as they are named, run by run. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_PUSH_H
#define OPTIMD_SERVER_ROUNDS_PUSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"
#include "server/base/alarm.h"
#include "server/base/letter.h"
#include "server/update/gradient.h"

struct engine;
struct letter;
struct member;
struct model;
struct peer;

struct push {
    struct push *next; /* in the member's queue, or among the model's spares */
    struct member *member;
    struct model *model;
    struct alarm deadline;
    struct opt_push head;  /* of its first frame, without the segments */
    struct letter *frames; /* whose data it is made of, newest first, by next */
    struct letter *answer; /* the letter that will be answered; NULL while gathering.
                              One of the frames, unless the push was sent again */
    bool answer_is_frame;
    struct peer *peer;   /* from which it comes; only compared */
    uint64_t request_id; /* of its frames */
    uint64_t session;
    uint64_t complete_ns; /* when its last frame came */
    uint32_t frame_count;
    size_t whole; /* tensors of the gradient that are there as a whole, or by rows */
    bool echo;    /* sent again while the first copy waits: data is not used */
    bool skip;    /* not finite: its round will be skipped */
    bool again;   /* resumed: what comes may have come before */
    bool overdue; /* its deadline has passed while its data was in use, */
    bool over;    /* or it has ended, and been answered */
    struct gradient gradient; /* what has come; rows are in the arenas of frames */
    uint32_t *here; /* per shard: blocks of it that are there; NULL unless rounds
                       are applied shard by shard */
    size_t reached; /* of shards from here on there is nothing yet */
    uint8_t *left; /* per shard: whether it has gone to the worker (shard_schedule.h) */
    bool wishes;   /* for that */
    bool wish_shared; /* and that it may be given by place */
    enum opt_dtype wish_dtype;
    uint64_t wish_since; /* Pull.since */
};

/* Bytes that the frames of one push hold while it waits, as many as one segment a
 * tensor takes: gradients in fp32, and the segments as they were unpacked, read and
 * resolved. At most: every row of every sparse tensor. */
size_t push_frames_bytes(const struct model *model);
/* What of them is reserved when a worker joins: all of the tensors that are pushed
 * whole; of sparse tensors, of which a push has some rows, SPARSE_RESERVED together.
 * More rows than that are charged when they come. */
size_t push_frames_reserved(const struct model *model);
/* The bytes that are reserved for a push: those of its frames, and its tables. */
size_t push_bytes(const struct model *model);

/* Complete pushes that one worker may have waiting, and for how many of them memory is
 * reserved when it joins. */
size_t push_limit(const struct model *model);
size_t push_reserved(const struct model *model);
/* Whether all of the model's gradient is reserved. */
bool push_is_reserved_whole(const struct model *model);
/* One of the model's spares, or a new one. As many as its members have reserved are
 * theirs; more are taken from the budget one by one. NULL: no memory. */
struct push *push_new(struct engine *engine, struct model *model);
/* The model goes, and its pushes have gone: give back what was taken for them. */
void push_refund(struct engine *engine, struct model *model);
/* Members have left: free spares that nothing is reserved for any more. */
void push_trim(struct engine *engine, struct model *model);
void push_free(struct push *push);
/* Its frames are given back without an answer, but for the letter in answer, which is
 * the caller's; it becomes a spare. */
void push_recycle(struct engine *engine, struct push *push);

/* Give back the frames all of whose shards have been published, so that their memory,
 * still in cache, takes the next ones. The first stays: it may have to answer. */
void push_release(struct engine *engine, struct push *push);
/* It goes on over another connection, where no shard has left yet. */
void push_forget_left(struct push *push);
/* The first frame of those that came over its present connection, or NULL. */
static inline struct letter *push_first_frame(const struct push *push)
{
    struct letter *first = NULL;
    for (struct letter *letter = push->frames; letter != NULL; letter = letter->next) {
        first = letter->peer == push->peer ? letter : first;
    }
    return first;
}

/* Whether a later frame belongs to the push that was begun. */
enum opt_status push_continues(const struct push *push, const struct opt_push *head,
                               struct opt_error *error);
/* Check a frame and note where its values are. On failure some of them may be noted:
 * the push is to be given up. *used: whether any of them were. */
enum opt_status push_take(struct engine *engine, struct push *push,
                          struct letter *letter, const struct opt_push *head,
                          bool *used, struct opt_error *error);
/* Its first frame has come again, from another connection: take the rest from this
 * copy. It must be the same push. */
enum opt_status push_resume(struct push *push, const struct letter *letter,
                            const struct opt_push *head, struct opt_error *error);
/* Every dense tensor that the push names must be there as a whole, and it must name a
 * tensor. */
enum opt_status push_whole(struct engine *engine, const struct push *push,
                           struct opt_error *error);

#endif
