/* opened — a model that the client has opened, as the session and the public functions
 * see it. Fields that change are guarded by the client's lock.
 */
#ifndef OPTCLIENT_OPENED_H
#define OPTCLIENT_OPENED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/call.h"
#include "client/optclient.h"
#include "client/shared.h"
#include "common/status.h"

struct opened_name {
    const char *name; /* the tensor's */
    size_t position;
};

/* How far a model is opened. */
enum opened_stage {
    OPENED_WANTED, /* create or open has not been answered: it can be sent again */
    OPENED_MAKING, /* answered, but not usable yet: lasts as long as the connection */
    OPENED_READY
};

enum { OPENED_LOST_KEPT = 64 };

/* What of a restore_id is not an id. */
#define OPENED_NOT_RESTORED UINT64_C(0)
#define OPENED_RESTORED UINT64_MAX

struct optclient_model {
    struct optclient *client;
    struct optclient_model *previous, *next; /* in client->models */
    char *name;
    char *specification;
    struct optclient_tensor *tensors; /* one block with all names and shapes */
    uint64_t *elements;               /* of each tensor */
    uint64_t *widths;                 /* elements of a row; 0: the tensor is dense */
    struct opened_name *names;        /* of the tensors, sorted, for finding */
    size_t tensor_count;

    enum opened_stage stage;
    uint32_t number;        /* to the daemon */
    uint64_t identity;      /* of the model itself, whatever connection it is seen on */
    bool joined;            /* opened to take part in rounds */
    bool closing;           /* by optclient_model_close */
    bool abandoned;         /* and that is over: to be freed with the end of leave */
    struct opt_error loss;  /* why calls on it fail, if the daemon has lost it */
    uint64_t restore_id;    /* of the request that opens it again on this connection */
    bool by_shards;         /* its rounds are applied shard by shard */
    uint64_t last_sequence; /* given to a push, or settled before */
    uint64_t step;          /* highest seen */
    uint64_t pulled_step;   /* of the last completed pull */
    uint64_t known_after; /* its step when it was opened again: weights of that step or
                             one before may be those of another model of this name */
    char *lost[OPENED_LOST_KEPT]; /* names of workers, a ring */
    uint64_t lost_count;          /* that were told of, */
    uint64_t lost_given;          /* and given by optclient_lost, or overwritten */
    struct shared shared;         /* memory in common with the daemon */
    struct optclient_call leave;
};

/* Lock held. A worker of the model was lost. */
void opened_note_lost(struct optclient_model *model, const char *name);

/* A model without tensors, in the client's list; NULL if there is no memory. */
struct optclient_model *opened_new(struct optclient *client, const char *name,
                                   bool joined);

/* Lock held. Take a model out of the client's list and free it. It has no calls. */
void opened_drop(struct optclient_model *model);

/* Copy the tensors, count their elements, sort their names. Their shapes have been
 * checked. False if there is no memory. */
bool opened_keep_tensors(struct optclient_model *model,
                         const struct optclient_tensor *tensors, size_t count);

/* The position of a tensor; SIZE_MAX: there is none of that name. */
size_t opened_find(const struct optclient_model *model, const char *name);

/* Number of elements of a shape, or 0 if it cannot be. */
uint64_t opened_count_elements(const uint64_t *shape, size_t rank);

#endif
