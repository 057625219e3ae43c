/* raw — a client that is nothing but a socket: sends any bytes, also wrong ones, and
 * reads replies. Every wait has a deadline; a wait that runs out fails the test.
 */
#ifndef OPTIMD_TESTS_SUPPORT_RAW_H
#define OPTIMD_TESTS_SUPPORT_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

enum { RAW_WAIT_MS = 10000 };

/* A received frame. */
struct raw_reply {
    struct opt_arena arena;
    struct opt_reply reply;
    uint8_t *data;
    size_t data_size;
};

/* A blocking connection to 127.0.0.1, or to the daemon's Unix socket (daemon.h). */
int raw_connect(uint16_t port);

/* Write everything; false if the peer has closed. */
bool raw_send(int socket, const void *bytes, size_t size);

/* Write one request as a frame; false if the peer has closed. */
bool raw_request(int socket, const struct opt_request *request, const void *data,
                 size_t data_size);

/* The same as bytes; malloc'd. */
uint8_t *raw_frame(const struct opt_request *request, const void *data,
                   size_t data_size, size_t *size);

/* Read one reply; false if the peer has closed. Free it by raw_reply_fini. */
bool raw_receive(int socket, struct raw_reply *out);
/* Read a whole frame as a reply. */
void raw_read(const uint8_t *frame, size_t size, struct raw_reply *out);
void raw_reply_fini(struct raw_reply *reply);

/* Read until the peer closes: true if it does within timeout_ms. */
bool raw_closed(int socket, int timeout_ms);

/* hello as worker ("" is an observer), and its answer. */
void raw_hello(int socket, const char *worker);

/* The next reply must be this error; its sentence must contain text. */
void raw_expect_error(int socket, uint64_t id, enum opt_status status,
                      const char *text);

/* One round trip that does nothing: the daemon lives and answers this connection. */
void raw_heartbeat(int socket, uint64_t id);

/* A counter of the daemon, by name; 0 if there is none of this name. The only request
 * on the way. */
uint64_t raw_counter(int socket, const char *name);

#endif
