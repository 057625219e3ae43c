/* shm — a model's memory for gradients and weights in place, in common with the
 * daemon where that is on this machine.
 *
 * Over a Unix socket the daemon hands out two files in memory: one for the gradients of
 * this worker, which it only reads, and one with the weights, which only it can write.
 * Then pushes and pulls name places in these files instead of carrying values. The
 * library copies between them and the caller's arrays, unless the caller uses the
 * memory given here (optclient_gradient, optclient_weights), which is the file itself.
 * Without a file that memory is the process's own, and values are sent.
 *
 *  - Gradients. One push at a time has its values copied there, until it is answered;
 *    others are sent. Once the connection is lost, or a push has ended without an
 *    answer, the daemon may still read the file, so nobody writes it any more. Memory
 *    that has been given to the caller never moves: the same addresses become a private
 *    copy of the file, from which values are sent.
 *  - Weights. What was given by place stays as it is until it is released, or the
 *    connection ends. So whoever has read it looks whether the connection still lives.
 *
 * Called by the rooms that send, receive and end calls, and by the public functions,
 * with the client's lock held but where a function says otherwise.
 */
#ifndef OPTCLIENT_SHM_H
#define OPTCLIENT_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct cut;
struct optclient;
struct optclient_call;
struct optclient_model;
struct optclient_values;
struct socket;

/* The weights' file, mapped; counted, because a caller may still read an old one. */
struct mapping {
    size_t references;
    const uint8_t *base;
    size_t size;
};

/* Weights given by place: part of a tensor. */
struct view_piece {
    size_t tensor;
    uint64_t offset, count;
    const float *values;
};

struct shm {
    size_t *at;     /* of each tensor, in floats, in memory laid out like the model */
    size_t floats;  /* of all of it */
    bool wanted;    /* to be asked for on this connection */
    bool claimed;   /* asked for, or had, on this connection */
    uint64_t asked; /* id of the request; 0: none */

    float *gradients;            /* memory for all of them; NULL: none yet */
    int file;                    /* that it is; -1: it is private */
    bool gradients_live;         /* the daemon reads it on this connection */
    bool gradients_given;        /* to the caller */
    struct optclient_call *user; /* whose push has been copied there */

    struct mapping *weights; /* of this connection; NULL: weights are sent */

    /* The weights that the caller reads in place. */
    struct optclient_values *values; /* for each tensor its memory in own */
    float *own;                      /* where they are when they were sent */
    const float **views;             /* for each tensor where it is; NULL: nowhere */
    struct view_piece *pieces;       /* of the pull in progress */
    size_t piece_count, piece_capacity;
    struct mapping *seen; /* what views point into, or NULL */
    uint64_t request;     /* that lent them; 0: none */
    uint64_t connection;  /* on which */
    bool torn;            /* they may have changed while they were read */
    bool filling;         /* a pull in place is in progress */
};

/* The model's tensors are known. False: no memory. No lock needed. */
bool shm_init(struct optclient_model *model);
void shm_fini(struct optclient_model *model);

/* Whether the client may share memory with its daemon at all. No lock needed. */
bool shm_possible(const struct optclient *client);

/* Whether this is the one to ask for memory of its model on this connection: of two
 * that were opened of one model only the first is, since the daemon has one file for
 * gradients of each. */
bool shm_claim(struct optclient_model *model);

/* The answer to share has come, with the files that came with it. */
void shm_take(struct optclient_model *model, const struct opt_share_reply *reply,
              struct socket *socket);

/* The connection is lost. */
void shm_reset(struct optclient_model *model);

/* Give the values of a frame by place, copying them if need be: fills places. False:
 * they have to be sent. *copied grows by the bytes that were copied. */
bool shm_place(struct optclient_call *call, const struct cut *cut, uint64_t *places,
               size_t *copied);

/* The memory for a tensor's gradient, for the caller to write; NULL: there is none. */
float *shm_give(struct optclient_model *model, size_t tensor);

/* A call has ended. If some of it was given by place and no answer has come, the daemon
 * may still read that: from now on nobody changes it. */
void shm_end(struct optclient_call *call);

/* Take the weights of a frame that were given by place: to the call's sink, or in
 * place. OPT_INTERNAL, OPT_DATA_LOSS if the daemon is wrong; OPT_RESOURCE_EXHAUSTED. */
enum opt_status shm_weights(struct optclient_call *call,
                            const struct opt_pull_reply *reply,
                            struct opt_error *error);

/* A pull in place begins: what the caller has seen so far is not read any more.
 * OPT_FAILED_PRECONDITION if another one is in progress, OPT_RESOURCE_EXHAUSTED. */
enum opt_status shm_view_begin(struct optclient_model *model, struct opt_error *error);
/* It is sent: once more if the connection was lost. */
void shm_view_again(struct optclient_model *model);
/* All of it has come, lent by that request if any of it was: show it. */
void shm_view_end(struct optclient_model *model, uint64_t request);
/* It has failed. */
void shm_view_fail(struct optclient_model *model);
/* The model is closed: what the caller has seen is not read any more. */
void shm_view_close(struct optclient_model *model);

/* Whether a gradient may have been computed from weights in place that were not whole,
 * because the connection that lent them was lost: OPT_ABORTED with a sentence. */
enum opt_status shm_check(struct optclient_model *model, struct opt_error *error);

/* The weights that the request lent are not read any more. */
void shm_release(struct optclient *client, uint64_t request);

#endif
