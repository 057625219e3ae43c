/* refusal — what a connection beyond the limit is told.
 *
 * Most are told by a loop, which waits until they have read it (conn.h). Those for whom
 * even that has no room get the same sentence from the thread that accepts them,
 * without a descriptor being kept: what fits into an empty socket is sent, and it is
 * closed. If the peer speaks at that very moment, its end may see a reset instead.
 * Called by listener, and for the sentence by service on a loop's thread.
 */
#ifndef OPTIMD_SERVER_NET_REFUSAL_H
#define OPTIMD_SERVER_NET_REFUSAL_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum {
    REFUSAL_RETRY_MS = 500, /* when to try again */
    REFUSAL_BYTES = 512     /* most that the frame takes */
};

struct refusal {
    uint8_t frame[REFUSAL_BYTES];
    size_t size;
};

/* The sentence, for a daemon that serves so many connections at a time. */
void refusal_sentence(size_t connections, char *text, size_t capacity);

/* Prepare the frame. */
void refusal_init(struct refusal *refusal, size_t connections);

/* Prepare the frame of any refusal. text is at most REFUSAL_BYTES - 64 long. */
void refusal_make(struct refusal *refusal, enum opt_status status,
                  enum opt_detail detail, uint32_t retry_after_ms, const char *text);

/* Say it, and that nothing follows; the socket must not block. */
void refusal_send(const struct refusal *refusal, int socket);

/* Say it and close the socket, which must not block. */
void refusal_say(const struct refusal *refusal, int socket);

#endif
