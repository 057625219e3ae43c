/* model — tensors, weights, slots and shards of one model, and who is in it.
 *
 * Layout. The tensors lie one after another in one flat range of floats, each starting
 * at a multiple of 16 (64 bytes). The range is cut into shards of at most OPT_SHARD
 * elements: a larger tensor has shards of its own, cut at multiples of OPT_SHARD;
 * small neighbours share one, so that publishing and counting references cost nothing
 * per small tensor. A sparse tensor has shards of its own too. A slot is one flat slab,
 * of which each shard knows its part; weights are one version per shard.
 *
 *   tensors  | a | b |c|      d ...                               | e | f |
 *   shards   |    0    |     1     |     2     |    3     |   4             |
 *
 * All memory an update needs is allocated when the model is made or a worker joins.
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_MODEL_MODEL_H
#define OPTIMD_SERVER_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/groups.h"
#include "common/optim/spec.h"
#include "common/optim/update.h"
#include "common/wire.h"
#include "server/base/alarm.h"
#include "server/base/letter.h"
#include "server/model/change.h"
#include "server/rounds/lost_workers.h"
#include "server/rounds/shard_schedule.h"
#include "server/update/update.h"
#include "server/weights/grouping.h"

struct keep;
struct snapshot;
struct engine;
struct errand;
struct gradient;
struct letter;
struct member;
struct peer;
struct push;
struct version;
struct version_pool;

/* What a step asks of each tensor comes first and is one line of cache: of a hundred
 * thousand tensors it has to come from far away. */
struct tensor {
    _Alignas(64) size_t n; /* elements */
    size_t rows, width;    /* of a sparse tensor, and elements of each; 0: dense */
    size_t at;             /* first element in the flat range */
    size_t first_block;    /* of the model's */
    size_t blocks;         /* none if sparse: those of an update are named by row */
    size_t shard; /* its first; a tensor of more than OPT_SHARD elements has others */
    uint64_t changed; /* number of the last update that could write any of it */
    struct opt_tensor_options options; /* of the last update that it was in */
    struct opt_tensor_counters counters;
    const char *name;
    size_t rank;
    const uint64_t *shape; /* rank dimensions; NULL: a scalar */
};

/* How a model is kept on disk, and how far it is there (server/durable). Records are
 * counted from 1, so 0 is none. */
struct model_durability {
    enum opt_durability mode;  /* DEFAULT: nothing is kept at all */
    uint64_t checkpoint_steps; /* a checkpoint every so many; 0: by the timer alone */
    uint64_t recorded;         /* the last record that tells of it, */
    uint64_t lost;             /* and the last that told of it and could not be kept */
    uint64_t saved;            /* the last that its newest checkpoint has */
    uint64_t saved_step;       /* that checkpoint's; 0: there is none */
    bool held_up;              /* a round waits until the disk has caught up */
};

enum { SHARD_BLOCKS = OPT_SHARD / OPT_BLOCK }; /* of a shard, at most */

struct shard {
    size_t at, n; /* in the flat range, padding included */
    size_t first_tensor, tensor_count;
    size_t blocks;               /* none if sparse */
    float *slots[OPT_SLOTS_MAX]; /* what the model's slots have of it */
    struct version *current;     /* one reference */
    struct version *spare; /* for an update that finds current held; may be NULL */
    struct version *next;  /* during an update: what it writes; current if in place */
    struct shard *opened;  /* during an update: the one it opened before */
    unsigned idle_updates; /* since the spare was last needed */
    uint64_t changed;      /* number of the last update that wrote any of it */
    bool published;        /* by the update that has begun */
    size_t unstepped;      /* blocks that its batch has still to step (update.h) */
};

/* Computed views: the training view where it is not the weights, and slots. Kept per
 * shard, so that all who ask for the same at the same step share one. */
enum { MIRROR_TRAIN = OPT_SLOTS_MAX, MIRROR_COUNT };
struct mirror {
    struct version *version;
    uint64_t step; /* it shows the model after so many updates */
};

/* A letter that waits until the model is ready and has had enough updates. */
struct waiting {
    struct waiting *next;
    struct alarm deadline;
    struct model *model;
    struct letter *letter;
    uint64_t step;
};

struct model {
    char *name;
    uint32_t number;   /* while this daemon lives */
    uint64_t identity; /* of its own, unlike its name and its specification */
    struct opt_spec spec;
    const char *canonical; /* the specification's text, of created or of a change */
    char *created;         /* what it was when the model was created */
    struct changes changes;
    struct opt_consistency consistency;
    struct model_durability durability;

    struct tensor *tensors;
    size_t tensor_count;
    char *tensor_names;        /* their memory, */
    uint32_t *names_at;        /* where each begins there, and the end, */
    uint64_t *shapes;          /* and the memory of their shapes, */
    size_t dimensions;         /* of all */
    struct opt_named named;    /* the names for who compares them with patterns */
    struct grouping *grouping; /* the tensors' groups in the specification */
    size_t blocks;
    size_t floats;  /* of the flat range */
    size_t largest; /* elements of the largest dense tensor */
    uint64_t parameters;
    uint64_t sparse_parameters; /* of these, in sparse tensors */

    struct shard *shards;
    size_t shard_count, shards_bytes;
    size_t pieces; /* tensors, the large ones cut at the borders of shards */
    struct snapshot
        *snapshot;        /* what is read as it was at a step (snapshot.h), or NULL */
    struct shard *opened; /* those that an update may write, linked by opened */
    struct version_pool *pool;
    float *slots[OPT_SLOTS_MAX]; /* their memory, floats each; shards have it */
    const char *slot_names[OPT_SLOTS_MAX];
    size_t slot_count;
    struct mirror *mirrors[MIRROR_COUNT]; /* shard_count each, or NULL */
    size_t mirror_pins[MIRROR_COUNT];     /* push_pulls that will need them */
    struct update update;                 /* in progress, and its memory */
    size_t reserved;                      /* of the budget, without versions */
    size_t left_bytes;                    /* of the slab that is being freed; 0: all */

    uint64_t step;    /* updates so far */
    uint64_t changed; /* every view may be another one from that step on: all who have
                         one of a step before have nothing */
    /* Lookahead sync epochs when the specification became what it is, and what they
     * would be if it had always been that. */
    uint64_t epochs_before, epochs_from;
    uint64_t rounds_skipped;
    uint64_t pushes_applied, dropped;
    double staleness_sum; /* of those applied */
    struct lost_workers losses;
    bool ready;           /* weights are there */
    struct peer *creator; /* who must assign them; NULL once ready */

    struct member **members; /* everybody known, in ascending byte order of names */
    size_t member_count, member_capacity;
    size_t joined;       /* of them, registered */
    size_t active;       /* of those, not resting */
    size_t missing;      /* of those, without a complete push */
    size_t present;      /* of all, with one */
    size_t arrived;      /* at the barrier */
    bool gathered;       /* min_workers have come together since there was nobody */
    struct push **round; /* the pushes being applied, room for all that can be */
    size_t round_count;
    const struct gradient **gradients; /* theirs, while an update reads them */
    struct shard_schedule schedule;    /* of the shards of the round */
    bool held; /* no other round begins: a checkpoint is about to be cut (saving.h) */
    struct keep *keep; /* what is known of its checkpoints; NULL: nothing */
    struct push *spare_pushes;
    size_t push_count;  /* pushes that there are, spares too; of these, beyond what */
    size_t pushes_paid; /* members have reserved */
    size_t rows_held;   /* of sparse tensors, in all pushes that are here, */
    size_t row_elements_held; /* and their elements */

    /* Giving way: much has been done of what came while it was busy, and others have
     * their turn before the rest of it. */
    enum {
        MODEL_IDLE,
        MODEL_UPDATING,
        MODEL_COPYING,
        MODEL_ON_ERRAND,
        MODEL_GIVING_WAY
    } activity;
    struct errand *errand;   /* the one that it is on (errand.h) */
    bool making;             /* which is to make it: nobody else knows it yet */
    bool listed;             /* among the engine's busy models */
    struct model *next_busy; /* there */
    struct letters queue;    /* came while it was not idle */
    struct letters copying;  /* pulls of computed views */
    struct waiting *waiting_first, *waiting_last;
    bool advanced; /* ready or stepped since those who wait were last looked at */
    bool changing; /* among those that are to be settled (work.h) */
    struct model *next_changed; /* there */
    bool deleted;
    struct letter *deleting; /* the delete that is answered when it is freed, or NULL */
    struct model *next_dead;
};

/* Bytes of so many tensors. */
static inline size_t model_tensor_bytes(size_t count)
{
    return (count + 1) * sizeof(struct tensor);
}
/* Free a model that nobody knows any more, some MiB of it, and it is to be called
 * again; true: all. What is there of one that could not be made is freed too. */
bool model_free_some(struct engine *engine, struct model *model);

/* The first difference between a model and what is asked for under its name, as a
 * sentence part ("its tensor 3 is ..., not ..."); false if there is none. The
 * first function compares all but the tensors, the second one of these. */
bool model_differs(const struct model *model, const struct opt_spec *spec,
                   const struct opt_create *create, char *text, size_t capacity);
bool model_tensor_differs(const struct model *model, size_t i,
                          const struct opt_tensor_entry *asked, char *text,
                          size_t capacity);

/* What a tensor has of its own according to the specification in force. */
static inline void model_tensor_options(const struct model *model, size_t tensor,
                                        struct opt_tensor_options *out)
{
    opt_group_options(&model->spec, model->grouping->of[tensor],
                      model->tensors[tensor].rank, out);
}
/* Give slots the values that they begin with, from element *filled on, some at a time;
 * all have them once that is the model's floats. */
void model_fill_slots(struct engine *engine, struct model *model, size_t *filled);

/* Lookahead sync epochs so far. */
static inline uint64_t model_epoch(const struct model *model)
{
    return model->epochs_before + opt_lookahead_epochs(&model->spec, model->step) -
           model->epochs_from;
}

/* Write initial weights, and the slots that begin as they do. */
void model_assign(struct model *model, const struct opt_segment *segment,
                  enum opt_dtype dtype, const void *values);
/* The weights are there. */
void model_ready(struct engine *engine, struct model *model);

/* Make the model's weights from the next update on where workers of this machine can
 * read them. OPT_RESOURCE_EXHAUSTED; they can be asked for again. */
enum opt_status model_share(struct engine *engine, struct model *model,
                            struct opt_error *error);

#endif
