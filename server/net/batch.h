/* batch — frames that go out together.
 *
 * The heads of its frames (prefix, header part, tag of the data) lie one after another
 * in its own memory, the data stays where it is, and an array of pieces puts them in
 * order. It owns the letters whose last frame it carries until it has been written.
 * Made by answer_frames.h, written by send.h. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_BATCH_H
#define OPTIMD_SERVER_NET_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "server/net/conn.h"

struct batch {
    struct conn *conn;
    struct batch *next;     /* to be written, or spare */
    struct letter *letters; /* that end with this batch */
    uint8_t *narrowed;      /* values of its last frame in 16 bits */
    size_t narrowed_capacity;
    size_t charge; /* bytes for which the connection is charged */
    struct iovec *parts;
    size_t part_count, part_capacity;
    size_t part_written; /* of them, whole; what is written of the next is cut off */
    size_t bytes;
    size_t frames;
    bool waited;           /* the transport did not take it at once */
    size_t used, capacity; /* of heads */
    uint8_t heads[];
};

/* An empty one, with room for heads of so many bytes if that is more than usual. NULL:
 * no memory. */
struct batch *batch_new(struct conn *conn, size_t heads);

/* Room for n more parts. False: no memory. */
bool batch_reserve(struct batch *batch, size_t n);

/* Append bytes, together with the part before if they follow it in memory. */
void batch_append(struct batch *batch, const void *bytes, size_t size);

/* The transport has not taken all of it: from now on its memory is the connection's. */
void batch_wait(struct batch *batch);

/* So many bytes more are written. True: that is all of it. */
bool batch_advance(struct batch *batch, size_t written);

/* It is written, or never will be: give back what it holds, and its letters. */
void batch_done(struct batch *batch);

/* Free the loop's spare ones. */
void batch_free_spare(struct loop *loop);

#endif
