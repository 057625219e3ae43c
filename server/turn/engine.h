/* engine — what owns every model, and the only OpenMP team.
 *
 * It takes letters in order and works on one thread at a time, its own or a loop's, so
 * every rule about rounds, leases and steps is plain sequential code. Large updates are
 * done in chunks of about a millisecond, between which letters for other models are
 * served; letters for the model being updated wait in the model's own queue. main
 * starts and stops it, loops post to it.
 */
#ifndef OPTIMD_SERVER_TURN_ENGINE_H
#define OPTIMD_SERVER_TURN_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/base/letter.h"

struct access;
struct durable;
struct engine;
struct message_row;
struct recorder;

struct engine_settings {
    int threads;         /* of the OpenMP team, at least 1 */
    int shared_threads;  /* where gradients came through no loop; at least threads */
    int other_threads;   /* that are started after the engine */
    size_t memory_bytes; /* budget for weights, slots and reserved gradients */
    size_t max_tensors;  /* per model */
    size_t max_models;
    uint32_t lease_ms;         /* silence after which a worker is lost */
    uint32_t grace_ms;         /* after its connection broke */
    uint32_t heartbeat_ms;     /* told to clients */
    uint32_t timeout_limit_ms; /* longest a request may wait */
    size_t max_frame_bytes;    /* told to clients */
    size_t max_header_bytes;   /* told to clients */
    size_t connection_bytes;   /* in flight without a worker's share; told to clients */
    const struct message_row *(*row)(enum opt_message); /* who serves a message */
    const struct recorder *recorder; /* who is told of all that becomes true; or NULL */
    struct durable *durable; /* what keeps it on disk, or NULL, and how if a model
                                does not say; DEFAULT without */
    enum opt_durability durability;
    struct access *access; /* who may do what; NULL: everybody everything */
    /* Who reads the configuration again: takes the letter, and gives it back to
     * engine_answered. False: not now. NULL: nobody. */
    bool (*reload)(void *context, struct letter *letter);
    void *reload_context;
};

/* Of the settings, those that may change while the engine runs. */
struct engine_limits {
    size_t max_tensors;
    size_t max_models;
    uint32_t lease_ms;
    uint32_t grace_ms;
    uint32_t heartbeat_ms;
    uint32_t timeout_limit_ms;
};

/* From its next turn on these are in force. What was granted before, a lease say, stays
 * as it was granted. Main thread. */
void engine_adjust(struct engine *engine, const struct engine_limits *limits);

/* A letter that was given to somebody else has its reply. Any thread. */
void engine_answered(struct engine *engine, struct letter *letter);

/* Start the thread. Main thread. */
enum opt_status engine_start(const struct engine_settings *settings,
                             struct engine **out, struct opt_error *error);

/* Threads that compute updates: those that were wanted, or could be had. */
int engine_threads(const struct engine *engine);

/* uv_hrtime when last the pull of a worker was refused because readers hold the memory;
 * 0: never. Any thread. */
uint64_t engine_refused_ns(const struct engine *engine);

/* Where loops post, or leave light letters before a visit. */
struct mailbox *engine_mailbox(struct engine *engine);

/* Serve the light letters that have been left, on the caller's thread, if nobody else
 * is at it; answers go to their mailboxes as always. Otherwise, and for whatever takes
 * longer than a loop may be held up, the engine's thread does it soon. Loop threads. */
void engine_visit(struct engine *engine);

/* Memory for the engine's side of a connection from that address, which stands in the
 * log. Any thread. NULL: no memory. It is given to the engine with the connection's
 * letters and freed by it at LETTER_CLOSED. */
struct peer *peer_new(const char *address);

/* Who is at the other end, as its connection has proved: "uid=1000" over a Unix socket;
 * over TLS the names in its certificate, first the subject's, with blanks between:
 *   CN=mlp-7 OU=training DNS:node7.example IP:10.0.0.7 URI:optimd:role=worker
 * Whatever stands in them but letters, digits and -._:/=@+ is written as %XX, so that
 * no name can look like another. Before the peer's first letter; any thread. False: no
 * memory. */
bool peer_identify(struct peer *peer, const char *identity);

/* Finish what is in progress and answer everything that waits with UNAVAILABLE, as
 * from then on everything that comes. Main thread; loops must still run, since answers
 * go through them. */
void engine_stop(struct engine *engine);
/* End the thread and free everything. After engine_stop, when all letters are back and
 * freed; NULL is allowed. */
void engine_free(struct engine *engine);

#endif
