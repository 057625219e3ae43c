/* fake_server — a daemon in a thread of the test, small enough to be believed and made
 * to misbehave on purpose.
 *
 * It speaks the whole protocol for one worker at a time per model: each push is an
 * update w -= g (SGD with rate 1) as soon as it is complete. What makes it useful are
 * its faults: a connection cut at the n-th frame, silence, and a hook that may answer
 * any request in its own way. Used by tests of the client.
 */
#ifndef OPTIMD_TESTS_SUPPORT_FAKE_SERVER_H
#define OPTIMD_TESTS_SUPPORT_FAKE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

struct fake_server;
struct fake_conn; /* one connection, served by a thread of its own */

enum fake_action {
    FAKE_SERVE,  /* as it should be */
    FAKE_DONE,   /* the hook has answered, or will not */
    FAKE_HANG_UP /* cut the connection */
};

/* Called for each request, with the server's lock held, before it is served. data is
 * that of this frame. */
typedef enum fake_action (*fake_hook)(struct fake_conn *conn,
                                      const struct opt_request *request,
                                      const uint8_t *data, size_t data_size,
                                      void *context);

/* Called when the header of a request has come and none of its data has been read. */
typedef void (*fake_begun)(struct fake_conn *conn, const struct opt_request *request,
                           void *context);

struct fake_options {
    uint16_t port;    /* 0: a free one */
    const char *path; /* a Unix socket instead; NULL: none */
    fake_hook hook;   /* may be NULL */
    fake_begun begun; /* may be NULL; with the lock held as well */
    void *context;    /* of the hooks */
    unsigned cut_at;  /* cut the connection at the n-th frame, counting those read
                         and those written from 1, once; 0: never */
    bool silent;      /* read everything, answer nothing */
    bool keep_models; /* models survive their creator's connection */
    uint32_t heartbeat_ms;
    uint32_t lease_ms;
    uint32_t chunk_bytes; /* 0: 4 MiB */
};

struct fake_server *fake_server_start(const struct fake_options *options);
void fake_server_stop(struct fake_server *server);

/* "127.0.0.1:PORT", or "unix:PATH". */
const char *fake_server_address(const struct fake_server *server);

/* How many connections were accepted, frames seen (as cut_at counts), pushes applied.
 */
unsigned fake_server_connections(struct fake_server *server);
unsigned fake_server_frames(struct fake_server *server);
unsigned fake_server_pushes(struct fake_server *server);
/* Heartbeats answered. */
unsigned fake_server_heartbeats(struct fake_server *server);
/* Wait until that many connections have been accepted; false after 10 s. */
bool fake_server_wait_connections(struct fake_server *server, unsigned count);
/* The same until a hook has noted something: look is called after each request, with
 * the server's lock held. */
bool fake_server_wait(struct fake_server *server, bool (*look)(const void *context),
                      const void *context);

/* Cut all connections now. */
void fake_server_cut(struct fake_server *server);
/* Forget all models, as a daemon that was started anew. */
void fake_server_forget(struct fake_server *server);

/* For hooks: which connection it is, from 1. */
unsigned fake_number(const struct fake_conn *conn);

/* For hooks: send a reply with data; bytes as they are; serve a request as it should
 * be (it shares no memory, and does not know places).
 */
void fake_reply(struct fake_conn *conn, const struct opt_reply *reply, const void *data,
                size_t data_size);
/* The same without data, with files that come with it, over a Unix socket. */
void fake_reply_files(struct fake_conn *conn, const struct opt_reply *reply,
                      const int *files, size_t count);
void fake_reply_error(struct fake_conn *conn, uint64_t id, enum opt_status status,
                      const char *text, uint32_t retry_after_ms);
void fake_send(struct fake_conn *conn, const void *bytes, size_t size);
void fake_serve(struct fake_conn *conn, const struct opt_request *request,
                const uint8_t *data, size_t data_size);

#endif
