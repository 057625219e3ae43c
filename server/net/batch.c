/* batch — see batch.h. */
#include "server/net/batch.h"

#include <stdlib.h>

#include "server/base/buffer.h"
#include "server/base/letter.h"
#include "server/net/charge.h"

enum {
    HEADS = 16 << 10, /* memory for heads in an ordinary batch */
    PARTS = 64,       /* pieces of an ordinary batch; it grows */
    SPARES = 8        /* empty batches kept by a loop */
};

static void batch_free(struct batch *batch)
{
    free(batch->parts);
    free(batch);
}

struct batch *batch_new(struct conn *conn, size_t heads)
{
    struct loop *loop = conn->loop;
    struct batch *batch = NULL;
    if (heads <= HEADS && loop->spare != NULL) {
        batch = loop->spare;
        loop->spare = batch->next;
        loop->spare_count--;
    } else {
        size_t capacity = heads > HEADS ? heads : HEADS;
        batch = malloc(sizeof(*batch) + capacity);
        if (batch == NULL) {
            return NULL;
        }
        *batch = (struct batch){ .capacity = capacity, .part_capacity = PARTS };
        batch->parts = malloc(PARTS * sizeof(*batch->parts));
        if (batch->parts == NULL) {
            batch_free(batch);
            return NULL;
        }
    }
    batch->conn = conn;
    return batch;
}

void batch_done(struct batch *batch)
{
    struct conn *conn = batch->conn;
    struct loop *loop = conn->loop;
    while (batch->letters != NULL) {
        struct letter *letter = batch->letters;
        batch->letters = letter->next;
        conn->outgoing--;
        conn_release(conn, letter);
    }
    charge_give(conn, batch->charge);
    batch->charge = 0;
    buffer_give(batch->narrowed, batch->narrowed_capacity);
    batch->narrowed = NULL;
    if (batch->capacity != HEADS || batch->part_capacity != PARTS ||
        loop->spare_count == SPARES) {
        batch_free(batch);
        return;
    }
    batch->part_count = 0;
    batch->part_written = 0;
    batch->bytes = 0;
    batch->frames = 0;
    batch->waited = false;
    batch->used = 0;
    batch->next = loop->spare;
    loop->spare = batch;
    loop->spare_count++;
}

void batch_free_spare(struct loop *loop)
{
    while (loop->spare != NULL) {
        struct batch *batch = loop->spare;
        loop->spare = batch->next;
        batch_free(batch);
    }
    loop->spare_count = 0;
}

bool batch_reserve(struct batch *batch, size_t n)
{
    size_t wanted = batch->part_count + n;
    if (wanted <= batch->part_capacity) {
        return true;
    }
    struct iovec *parts = realloc(batch->parts, 2 * wanted * sizeof(*parts));
    if (parts == NULL) {
        return false;
    }
    batch->parts = parts;
    batch->part_capacity = 2 * wanted;
    return true;
}

void batch_append(struct batch *batch, const void *bytes, size_t size)
{
    batch->bytes += size;
    if (batch->part_count > 0) {
        struct iovec *before = &batch->parts[batch->part_count - 1];
        if ((const uint8_t *)before->iov_base + before->iov_len == bytes) {
            before->iov_len += size;
            return;
        }
    }
    /* iovec has no const; a transport only reads. */
    batch->parts[batch->part_count++] =
        (struct iovec){ .iov_base = (void *)(uintptr_t)bytes, .iov_len = size };
}

void batch_wait(struct batch *batch)
{
    size_t bytes =
        sizeof(*batch) + batch->capacity + batch->part_capacity * sizeof(*batch->parts);
    charge_force(batch->conn, bytes);
    batch->charge += bytes;
    batch->waited = true;
}

bool batch_advance(struct batch *batch, size_t written)
{
    while (batch->part_written < batch->part_count) {
        struct iovec *part = &batch->parts[batch->part_written];
        if (written < part->iov_len) {
            part->iov_base = (uint8_t *)part->iov_base + written;
            part->iov_len -= written;
            return false;
        }
        written -= part->iov_len;
        batch->part_written++;
    }
    return true;
}
