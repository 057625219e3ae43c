/* call — one thing asked of the daemon, from the moment it is asked to its end.
 *
 *            api_post             last frame out           answer, deadline, ...
 *   (new) ---------------> QUEUED ------------------> SENT ------------------------+
 *                          ^   |                       |                           v
 *                          |   +-----------------------|----------------------> ENDED
 *                          +--- connection lost -------+                           |
 *                          ^                           |                  callback |
 *                          +-- LATER <-- "try later" --+                           v
 *                                                                                DONE
 *
 * Whoever asks makes it and hands it over (api.h); requests.h sends it, replies.h takes
 * in its answer, calls.h ends it. A waiting function keeps it on its stack, an
 * asynchronous one on the heap. All fields belong to whoever holds the client's lock;
 * once ENDED, to whoever asked.
 */
#ifndef OPTCLIENT_CALL_H
#define OPTCLIENT_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/cutter.h"
#include "client/fate.h"
#include "client/optclient.h"
#include "client/sink.h"
#include "common/status.h"
#include "common/wire.h"

enum call_state { CALL_NEW, CALL_QUEUED, CALL_SENT, CALL_LATER, CALL_ENDED, CALL_DONE };

struct call_list {
    struct optclient_call *first, *last;
};

struct optclient_call {
    struct optclient *client;
    struct optclient_model *model; /* NULL if it is about none */
    struct call_list *list;        /* that it is in, or NULL */
    struct optclient_call *previous, *next;
    struct optclient_call *next_of_id; /* in the table of ids */
    enum call_state state;
    pthread_cond_t changed; /* state has become ENDED or DONE */

    /* What is asked. OPT_MESSAGE_NONE: only that there is a connection. Strings and
     * arrays are borrowed from the caller or owned below. */
    struct opt_request request;
    uint64_t deadline_ns;
    const uint8_t *table; /* data of a create, borrowed */
    size_t table_size;
    struct cutter cutter;            /* push, push_pull, assign: what to send */
    struct sink sink;                /* pull, push_pull: where to put it */
    struct opt_segment *segments;    /* of the pull, one for each of its values; owned;
                                        NULL: all tensors */
    size_t segment_bytes;            /* that they take in a header part */
    bool pulls_rows;                 /* some of them name rows */
    struct optclient_values *values; /* copies of the arrays of an asynchronous call */
    char *slot;                      /* copy of its slot's name */

    /* How far it is. */
    uint64_t id;            /* of its request on the present connection; 0: none */
    uint64_t first_id;      /* assign: of its first frame; each has an id of its own */
    struct fate fate;       /* push: what becomes of it */
    uint64_t not_before_ns; /* LATER: when to try again */
    uint64_t held;          /* bytes that its frames hold at the daemon */
    bool begun;             /* a frame of it is out, or on its way */
    bool resent;            /* not for the first time */
    bool placed;            /* push: some of it was given by place and not answered */
    bool in_place;          /* pull: into the model's own memory */
    bool lent;              /* pull: some of the weights were given by place */
    bool pushed;            /* push_pull: applied before; only the pull is left */

    /* What came of it. */
    struct opt_error error;
    struct optclient_result result;
    struct opt_arena arena; /* of reply's strings */
    struct opt_reply reply; /* to create, open, statistics */
    uint8_t *data;          /* of the replies to list and describe; owned */
    size_t data_size;

    /* Asynchronous calls. */
    bool on_heap;
    bool freed; /* by a callback: the callbacks' thread does it afterwards */
    optclient_on_done on_done;
    void *context;
};

/* Prepare a call on storage of the caller. timeout_ms 0: the client's. */
void call_init(struct optclient_call *call, struct optclient *client,
               struct optclient_model *model, enum opt_message message,
               uint32_t timeout_ms);

/* Free what it owns. It has ended, or was never posted. */
void call_fini(struct optclient_call *call);

/* Free an asynchronous call that is DONE. Whoever finds client->references to be 0
 * after that frees the client. */
void call_release(struct optclient_call *call);

/* Which message is asked now: a push_pull whose push has been applied is a pull. */
enum opt_message call_message(const struct optclient_call *call);

/* "push", "pull", ...: how a sentence speaks of it. */
const char *call_name(const struct optclient_call *call);

/* Whether a push has been asked for, whatever has become of it; whether it is still to
 * be sent; and whether weights are to come. */
bool call_has_push(const struct optclient_call *call);
bool call_pushes(const struct optclient_call *call);
bool call_pulls(const struct optclient_call *call);

/* The push or pull in what is asked. */
struct opt_push *call_push_of(struct opt_request *request);
struct opt_pull *call_pull_of(struct opt_request *request);

/* Milliseconds until its deadline, rounded up, at least 1. */
uint32_t call_ms_left(const struct optclient_call *call);

void call_append(struct call_list *list, struct optclient_call *call);
void call_unlink(struct optclient_call *call);

#endif
