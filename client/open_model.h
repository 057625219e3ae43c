/* open_model — a model that the client has opened: what is known of it, and how far it
 * is opened. Public functions make it and drop it, answers fill it in; fields that
 * change are guarded by the client's lock.
 */
#ifndef OPTCLIENT_OPEN_MODEL_H
#define OPTCLIENT_OPEN_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/call.h"
#include "client/optclient.h"
#include "client/shm.h"
#include "common/status.h"

struct open_model_name {
    const char *name; /* the tensor's */
    size_t position;
};

/* How far a model is opened. */
enum open_stage {
    OPEN_WANTED, /* create or open has not been answered: it can be sent again */
    OPEN_MAKING, /* answered, but not usable yet: lasts as long as the connection */
    OPEN_READY
};

enum { OPEN_MODEL_LOST_KEPT = 64 };

/* What of a reopen_id is not an id. */
#define REOPEN_NOT_ASKED UINT64_C(0)
#define REOPEN_DONE UINT64_MAX

struct optclient_model {
    struct optclient *client;
    struct optclient_model *previous, *next; /* in client->models */
    char *name;
    char *specification;
    struct optclient_tensor *tensors; /* one block with all names and shapes */
    uint64_t *elements;               /* of each tensor */
    uint64_t *widths;                 /* elements of a row; 0: the tensor is dense */
    struct open_model_name *names;    /* of the tensors, sorted, for finding */
    size_t tensor_count;

    enum open_stage stage;
    uint32_t number;        /* to the daemon */
    uint64_t identity;      /* of the model itself, whatever connection it is seen on */
    bool joined;            /* opened to take part in rounds */
    uint64_t made;          /* identity of the one that this client has created, or 0 */
    bool closing;           /* by optclient_model_close */
    bool left;              /* by optclient_model_leave: no calls on it any more */
    bool abandoned;         /* and that is over: to be freed with the end of leave */
    struct opt_error loss;  /* why calls on it fail, if the daemon has lost it */
    uint64_t reopen_id;     /* of the request that opens it again on this connection */
    bool by_shards;         /* its rounds are applied shard by shard */
    uint64_t last_sequence; /* given to a push, or settled before */
    uint64_t step;          /* highest seen */
    uint64_t pulled_step;   /* of the last completed pull */
    uint64_t known_after;   /* its step when it was opened again, or the highest seen
                               before: weights of that step or one before may be those of
                               another model of this name, or of updates that were lost */
    char *lost[OPEN_MODEL_LOST_KEPT]; /* names of workers, a ring */
    uint64_t lost_count;              /* that were told of, */
    uint64_t lost_given;              /* and given by optclient_lost, or overwritten */
    struct shm shm;                   /* memory in common with the daemon */
    struct optclient_call leave;
};

/* Lock held. A worker of the model was lost. */
void open_model_note_lost(struct optclient_model *model, const char *name);

/* A model without tensors, in the client's list; NULL if there is no memory. */
struct optclient_model *open_model_new(struct optclient *client, const char *name,
                                       bool joined);

/* Lock held. Take a model out of the client's list and free it. It has no calls. */
void open_model_drop(struct optclient_model *model);

/* Copy the tensors, count their elements, sort their names. Their shapes have been
 * checked. False if there is no memory. */
bool open_model_keep_tensors(struct optclient_model *model,
                             const struct optclient_tensor *tensors, size_t count);

/* The position of a tensor; SIZE_MAX: there is none of that name. */
size_t open_model_find(const struct optclient_model *model, const char *name);

/* Number of elements of a shape, or 0 if it cannot be. */
uint64_t open_model_count_elements(const uint64_t *shape, size_t rank);

#endif
