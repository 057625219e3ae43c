/* answer_frames — see answer_frames.h. */
#include "server/net/answer_frames.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"
#include "common/frame.h"
#include "server/base/buffer.h"
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/net/batch.h"
#include "server/net/charge.h"
#include "server/net/peer_memory.h"

enum {
    SEGMENT_BYTES = 31,  /* of a header, for a segment without rows, at most */
    ROW_BYTES = 5,       /* for a row, */
    PLACE_BYTES = 10,    /* and for a place */
    PIECE_COST = 128,    /* to name and to pack a piece takes so long (loop_done), */
    BYTES_SUMMED = 16,   /* to sum so many bytes one unit of that, */
    VALUES_NARROWED = 2, /* and to narrow so many values */
    TAG_MAX = OPT_FRAME_BEGIN_MAX - OPT_FRAME_PREFIX
};

/* The part of an answer that goes into one frame. */
struct cut {
    const struct letter *letter;
    size_t first, end; /* pieces, end excluded; the last may go in part */
    size_t named;      /* of them, those that have not gone before */
    uint64_t from;     /* first element of the first piece */
    uint64_t until;    /* end of the last piece's part */
    uint64_t elements;
    size_t segment_count;   /* in loop->segments, and loop->places if */
    bool placed;            /* the values are given by place */
    size_t unchanged_count; /* in loop->unchanged */
    size_t header;          /* bytes that they take at most */
    bool last;
};

static struct opt_pull_reply *pull_of(struct opt_reply *reply)
{
    switch (reply->message) {
    case OPT_MESSAGE_PULL:
        return &reply->body.pull;
    case OPT_MESSAGE_PUSH_PULL:
        return &reply->body.push_pull.pull;
    default:
        return NULL;
    }
}

static uint64_t piece_elements(const struct letter *letter, size_t piece)
{
    return letter->pieces[piece].segment.count;
}

/* Name a segment in the header; the one before grows if it ends where this begins.
 * False: there is no room. */
static bool name_segment(struct cut *cut, struct opt_segment *segments, size_t *count,
                         const struct opt_segment *segment)
{
    struct opt_segment *before = *count > 0 ? &segments[*count - 1] : NULL;
    if (before != NULL && before->row_count + segment->row_count == 0 &&
        before->tensor == segment->tensor &&
        before->offset + before->count == segment->offset) {
        before->count += segment->count;
        return true;
    }
    size_t bytes = SEGMENT_BYTES + ROW_BYTES * segment->row_count;
    if (cut->header + bytes > LOOP_SEGMENTS * SEGMENT_BYTES) {
        return false;
    }
    cut->header += bytes;
    segments[(*count)++] = *segment;
    return true;
}

/* The same for values that are given by place: only where they follow in memory as well
 * is a segment one with that before. */
static bool name_place(struct cut *cut, struct loop *loop,
                       const struct opt_segment *segment, uint64_t place)
{
    size_t count = cut->segment_count;
    const struct opt_segment *before = count > 0 ? &loop->segments[count - 1] : NULL;
    if (before != NULL && before->tensor == segment->tensor &&
        before->offset + before->count == segment->offset &&
        loop->places[count - 1] + before->count * sizeof(float) == place) {
        loop->segments[count - 1].count += segment->count;
        return true;
    }
    size_t bytes = SEGMENT_BYTES + PLACE_BYTES;
    if (cut->header + bytes > LOOP_SEGMENTS * SEGMENT_BYTES) {
        return false;
    }
    cut->header += bytes;
    loop->places[count] = place;
    loop->segments[cut->segment_count++] = *segment;
    return true;
}

/* Decide what the next frame of the first answer carries, and name its segments. */
static struct cut cut_frame(struct conn *conn, const struct letter *letter)
{
    struct loop *loop = conn->loop;
    const uint64_t most = OPT_CHUNK_BYTES / opt_dtype_size(letter->dtype);
    struct cut cut = { .letter = letter,
                       .first = conn->piece,
                       .end = conn->piece,
                       .from = conn->element };
    uint64_t from = cut.from;
    while (cut.end < letter->piece_count && cut.elements < most) {
        const struct piece *piece = &letter->pieces[cut.end];
        const struct opt_segment *whole = &piece->segment;
        uint64_t start = whole->offset + from;
        uint64_t count = whole->count - from;
        if (piece->gone) {
            cut.until = whole->count;
            cut.end++;
            continue;
        }
        cut.named++;
        if (piece->unchanged) {
            if (!name_segment(&cut, loop->unchanged, &cut.unchanged_count, whole)) {
                break;
            }
            cut.until = whole->count;
            cut.end++;
            continue;
        }
        uint64_t place = 0;
        bool placed = peer_memory_place(letter, piece, from, &place);
        if (cut.segment_count == 0) {
            cut.placed = placed;
        } else if (placed != cut.placed) {
            break; /* a frame has either data or places */
        }
        if (whole->row_count > 0 && cut.segment_count > 0 &&
            count > most - cut.elements) {
            break; /* rows are not cut: at most a frame's worth is a piece */
        }
        if (whole->row_count == 0 && count > most - cut.elements) {
            if (cut.elements >= most / 2) {
                break; /* what is one run of memory at the other end need not be copied
                        */
            }
            /* Segments end at whole blocks, except at the end of the tensor. */
            uint64_t stop = start + most - cut.elements;
            stop -= stop % OPT_BLOCK;
            if (stop <= start) {
                break;
            }
            count = stop - start;
        }
        struct opt_segment part = *whole;
        part.offset = start;
        part.count = count;
        if (placed ? !name_place(&cut, loop, &part, place)
                   : !name_segment(&cut, loop->segments, &cut.segment_count, &part)) {
            break;
        }
        cut.elements += count;
        cut.until = from + count;
        cut.end++;
        if (cut.until < whole->count) {
            break;
        }
        from = 0;
    }
    cut.last =
        cut.end == letter->piece_count &&
        (cut.end == cut.first || cut.until == piece_elements(letter, cut.end - 1));
    return cut;
}

/* The values of a piece that the cut carries; *count 0: none. */
static const float *cut_values(const struct cut *cut, size_t piece, uint64_t *count)
{
    if (cut->letter->pieces[piece].unchanged || cut->letter->pieces[piece].gone) {
        *count = 0;
        return NULL;
    }
    uint64_t from = piece == cut->first ? cut->from : 0;
    uint64_t until =
        piece + 1 == cut->end ? cut->until : piece_elements(cut->letter, piece);
    *count = until - from;
    return cut->letter->pieces[piece].values + from;
}

enum outcome {
    FRAME_ADDED,
    FRAME_DOES_NOT_FIT, /* the head of the batch */
    FRAME_WAITS,        /* for room in the budget */
    FRAME_NO_MEMORY
};

/* The values of the cut in 16 bits; *held of them are beyond these. */
static enum outcome narrow(struct batch *batch, const struct cut *cut, uint64_t *held)
{
    enum opt_dtype dtype = cut->letter->dtype;
    size_t size = (size_t)cut->elements * opt_dtype_size(dtype);
    size_t capacity = buffer_capacity(size);
    if (!charge_take(batch->conn, capacity)) {
        return FRAME_WAITS;
    }
    batch->charge += capacity;
    batch->narrowed = buffer_take(size, &batch->narrowed_capacity);
    if (batch->narrowed == NULL) {
        return FRAME_NO_MEMORY;
    }
    uint8_t *out = batch->narrowed;
    for (size_t i = cut->first; i < cut->end; i++) {
        uint64_t left = 0;
        const float *values = cut_values(cut, i, &left);
        /* As much at once as stays in the cache in between. */
        for (size_t count; left > 0; values += count, left -= count) {
            count = left < OPT_BLOCK ? (size_t)left : OPT_BLOCK;
            opt_dtype_narrow(dtype, values, out, count);
            *held += opt_dtype_count_beyond(dtype, values, count);
            out += count * opt_dtype_size(dtype);
        }
    }
    counter_add(COUNTER_DATA_NARROWED, size);
    loop_done(batch->conn->loop, cut->elements / VALUES_NARROWED);
    if (*held > 0) {
        counter_add(COUNTER_VALUES_HELD, *held);
    }
    return FRAME_ADDED;
}

static bool checksum(struct loop *loop, const struct batch *batch,
                     const struct cut *cut, uint64_t *out)
{
    loop_done(loop, cut->elements * opt_dtype_size(cut->letter->dtype) / BYTES_SUMMED);
    if (batch->narrowed != NULL) {
        size_t size = (size_t)cut->elements * opt_dtype_size(cut->letter->dtype);
        *out = XXH3_64bits(batch->narrowed, size);
        return true;
    }
    if (loop->hash == NULL) {
        loop->hash = XXH3_createState();
        if (loop->hash == NULL) {
            return false;
        }
    }
    XXH3_64bits_reset(loop->hash);
    for (size_t i = cut->first; i < cut->end; i++) {
        uint64_t count = 0;
        const float *values = cut_values(cut, i, &count);
        if (count > 0) {
            XXH3_64bits_update(loop->hash, values, (size_t)count * sizeof(*values));
        }
    }
    *out = XXH3_64bits_digest(loop->hash);
    return true;
}

/* Bytes that the head of reply takes in the batch; 0 if it does not fit. On success the
 * header part stands behind the place of the prefix. */
static size_t pack_head(struct batch *batch, const struct opt_reply *reply,
                        size_t *size)
{
    uint8_t *head = batch->heads + batch->used + OPT_FRAME_PREFIX;
    size_t around = OPT_FRAME_PREFIX + TAG_MAX;
    size_t left = batch->capacity - batch->used;
    size_t room = left > around ? left - around : 0;
    *size = opt_reply_pack(reply, head, room);
    return *size <= room ? *size : 0;
}

/* Make the packed header part a frame with data_size bytes of data to come. */
static void append_head(struct batch *batch, size_t size, size_t data_size)
{
    uint8_t *prefix = batch->heads + batch->used;
    uint8_t tag[TAG_MAX];
    size_t tag_size = 0;
    opt_frame_begin(size, data_size, prefix, tag, &tag_size);
    memcpy(prefix + OPT_FRAME_PREFIX + size, tag, tag_size);
    size_t whole = OPT_FRAME_PREFIX + size + tag_size;
    batch->used += whole;
    batch->frames++;
    batch_append(batch, prefix, whole);
}

/* The next frame of weights. */
static enum outcome add_weights(struct conn *conn, struct batch *batch,
                                struct letter *letter, bool *last, size_t *needed)
{
    struct cut cut = cut_frame(conn, letter);
    loop_done(conn->loop, PIECE_COST * (uint64_t)cut.named + (cut.end - cut.first));
    struct opt_reply reply = letter->reply;
    struct opt_pull_reply *pull = pull_of(&reply);
    pull->segments = conn->loop->segments;
    pull->segment_count = cut.segment_count;
    pull->unchanged = conn->loop->unchanged;
    pull->unchanged_count = cut.unchanged_count;
    pull->dtype = letter->dtype;
    pull->last = cut.last && letter->kind != LETTER_PART;
    pull->places = cut.placed ? conn->loop->places : NULL;
    if (reply.message == OPT_MESSAGE_PUSH_PULL && !pull->last) {
        reply.body.push_pull.has_push = false;
    }
    reply.has_checksum = letter->request.has_checksum && !cut.placed;
    reply.checksum = UINT64_MAX;
    bool narrows = letter->dtype != OPT_FP32 && cut.elements > 0;
    pull->held = narrows ? cut.elements : 0;
    size_t size = 0;
    if (pack_head(batch, &reply, &size) == 0) {
        *needed = size + OPT_FRAME_BEGIN_MAX;
        return FRAME_DOES_NOT_FIT;
    }
    pull->held = 0;
    if (!batch_reserve(batch, cut.named + 1)) {
        return FRAME_NO_MEMORY;
    }
    if (narrows) {
        enum outcome outcome = narrow(batch, &cut, &pull->held);
        if (outcome != FRAME_ADDED) {
            return outcome;
        }
    }
    if (reply.has_checksum && !checksum(conn->loop, batch, &cut, &reply.checksum)) {
        return FRAME_NO_MEMORY;
    }
    if (narrows || reply.has_checksum) {
        pack_head(batch, &reply, &size); /* now that it is known what to say */
    }
    size_t data_size =
        cut.placed ? 0 : (size_t)cut.elements * opt_dtype_size(letter->dtype);
    append_head(batch, size, data_size);
    if (cut.placed) {
        letter->lent = true;
        counter_add(COUNTER_DATA_SHARED, (size_t)cut.elements * sizeof(float));
    } else if (batch->narrowed != NULL) {
        batch_append(batch, batch->narrowed, data_size);
    } else {
        for (size_t i = cut.first; i < cut.end; i++) {
            uint64_t count = 0;
            const float *values = cut_values(&cut, i, &count);
            if (count > 0) {
                batch_append(batch, values, (size_t)count * sizeof(*values));
            }
        }
    }
    *last = cut.last;
    if (!cut.last) {
        bool inside = cut.until < piece_elements(letter, cut.end - 1);
        conn->piece = inside ? cut.end - 1 : cut.end;
        conn->element = inside ? cut.until : 0;
    }
    return FRAME_ADDED;
}

/* A table can be longer than the peer takes. */
static void limit_table(const struct conn *conn, struct letter *letter)
{
    size_t around = (size_t)OPT_HEADER_BYTES; /* more than the rest of such an answer */
    if (letter->table_size > 0 && letter->table_size + around > conn->answer_bytes) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                    "the answer has a table of %zu bytes; this client takes frames of "
                    "%" PRIu64 " bytes (Hello.max_frame_bytes)",
                    letter->table_size, conn->answer_bytes);
        free(letter->table);
        letter->table = NULL;
        letter->table_size = 0;
    }
}

/* An answer of one frame: no data, or a table. */
static enum outcome add_whole(const struct conn *conn, struct batch *batch,
                              struct letter *letter, size_t *needed)
{
    limit_table(conn, letter);
    struct opt_reply reply = letter->reply;
    if (letter->request.has_checksum && letter->table_size > 0) {
        reply.has_checksum = true;
        reply.checksum = XXH3_64bits(letter->table, letter->table_size);
        loop_done(conn->loop, letter->table_size / BYTES_SUMMED);
    }
    size_t size = 0;
    if (pack_head(batch, &reply, &size) == 0 && size > 0) {
        *needed = size + OPT_FRAME_BEGIN_MAX;
        return FRAME_DOES_NOT_FIT;
    }
    if (!batch_reserve(batch, 2)) {
        return FRAME_NO_MEMORY;
    }
    append_head(batch, size, letter->table_size);
    if (letter->table_size > 0) {
        batch_append(batch, letter->table, letter->table_size);
    }
    return FRAME_ADDED;
}

static enum outcome add_frame(struct conn *conn, struct batch *batch, size_t *needed)
{
    struct letter *letter = conn->answers;
    bool last = true;
    enum outcome outcome = pull_of(&letter->reply) != NULL
                               ? add_weights(conn, batch, letter, &last, needed)
                               : add_whole(conn, batch, letter, needed);
    if (outcome == FRAME_ADDED && last) {
        /* Before anything of it is written, or it could be given back before. */
        if (!peer_memory_keep(conn, letter)) {
            return FRAME_NO_MEMORY;
        }
        conn->answers = letter->next;
        conn->piece = 0;
        conn->element = 0;
        letter->next = batch->letters;
        batch->letters = letter;
    }
    return outcome;
}

struct batch *answer_frames_batch(struct conn *conn, bool *waits)
{
    struct batch *batch = batch_new(conn, 0);
    uint64_t before = conn->loop->turn_cost;
    while (batch != NULL && loop_may_go_on(conn->loop, before) &&
           conn->answers != NULL && batch->bytes < OPT_CHUNK_BYTES &&
           batch->narrowed == NULL &&
           conn->answers->reply.message != OPT_MESSAGE_SHARE) {
        size_t needed = 0;
        enum outcome outcome = add_frame(conn, batch, &needed);
        if (outcome == FRAME_ADDED) {
            continue;
        }
        if (outcome == FRAME_NO_MEMORY) {
            batch_done(batch);
            return NULL;
        }
        if (batch->frames > 0) {
            break;
        }
        if (outcome == FRAME_WAITS) {
            *waits = true;
            batch_done(batch);
            return NULL;
        }
        batch_done(batch);
        batch = batch_new(conn, needed);
    }
    return batch;
}
