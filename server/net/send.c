/* send — see send.h. */
#include "server/net/send.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/frame.h"
#include "common/log.h"
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/net/answer_frames.h"
#include "server/net/batch.h"
#include "server/net/charge.h"
#include "server/net/peer_memory.h"
#include "server/net/refusal.h"

enum {
    BATCH_BYTES = 20 << 10, /* of an ordinary batch */
    BYTES_WRITTEN = 4,      /* in a unit of cost (loop_done) */
    FILES_FRAME = 128       /* more than the answer to share takes */
};

static void count_written(const struct batch *batch)
{
    counter_add(COUNTER_BYTES_SENT, batch->bytes);
    counter_add(COUNTER_FRAMES_SENT, batch->frames);
    uint64_t now = uv_hrtime(), taken = 0;
    for (const struct letter *letter = batch->letters; letter != NULL;
         letter = letter->next) {
        taken += letter->answered_ns > 0 ? now - letter->answered_ns : 0;
    }
    counter_add(COUNTER_SEND_NS, taken);
}

/* Write the batches, as far as the transport takes them. */
static void write_batches(struct conn *conn)
{
    struct opt_transport *transport = &conn->watch.transport;
    while (conn->batches != NULL && !conn->blocked) {
        struct batch *batch = conn->batches;
        ssize_t written =
            transport->kind->write(transport, &batch->parts[batch->part_written],
                                   batch->part_count - batch->part_written);
        if (written < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            conn_close(conn, uv_err_name(-errno));
            return;
        }
        size_t taken = written > 0 ? (size_t)written : 0;
        loop_done(conn->loop, taken / BYTES_WRITTEN);
        if (taken > 0) {
            conn->taken += taken;
            conn->queue -= taken;
            conn->written_ms = conn_now(conn);
        }
        if (!batch_advance(batch, taken)) {
            conn->blocked = true;
            return;
        }
        if (batch->waited) {
            /* Somebody has read at the other end. What deadlines.h sees need not tell:
             * there may be as much to be written whenever it looks. */
            conn->heard_ms = conn->written_ms;
        }
        conn->batches = batch->next;
        conn->batch_count--;
        count_written(batch);
        batch_done(batch);
    }
}

/* Write the batch (takes it), after those that wait. */
static void write_batch(struct conn *conn, struct batch *batch)
{
    batch->next = NULL;
    if (conn->batches == NULL) {
        conn->batches = batch;
    } else {
        conn->batches_last->next = batch;
    }
    conn->batches_last = batch;
    conn->batch_count++;
    conn->queue += batch->bytes;
    write_batches(conn);
    if (conn->batches != NULL) {
        batch_wait(conn->batches_last);
    }
}

void send_answer(struct conn *conn, struct letter *letter)
{
    /* Too long a frame must not leave: the client would have to cut the connection. */
    size_t limit = conn_limits(conn)->frame.frame_bytes;
    if (letter->table_size > limit - conn_limits(conn)->frame.header_bytes) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                    "the answer takes %zu bytes, more than a frame may have (%zu, "
                    "setting max-frame)",
                    letter->table_size, limit);
        letter->table_size = 0;
    }
    bool turned_away = letter->hang_up && letter->reply.message == OPT_MESSAGE_ERROR;
    if (!turned_away) { /* who is, is told as the connection it was */
        letter->reply.id = letter->request.id;
    }
    peer_memory_lend(conn, letter);
    letter->next = NULL;
    if (conn->answers == NULL) {
        conn->answers = letter;
    } else {
        conn->answers_last->next = letter;
    }
    conn->answers_last = letter;
    if (conn->outgoing++ == 0) {
        conn->outgoing_ms = conn_now(conn);
    }
    conn_ready(conn);
}

/* The first answer goes with files in memory; all that came before it has been written.
 * False: not now, or the connection ends. */
static bool send_files(struct conn *conn)
{
    struct letter *letter = conn->answers;
    uint8_t frame[FILES_FRAME];
    uint8_t tag[OPT_FRAME_BEGIN_MAX - OPT_FRAME_PREFIX];
    size_t tag_size = 0;
    size_t size = opt_reply_pack(&letter->reply, frame + OPT_FRAME_PREFIX,
                                 sizeof(frame) - OPT_FRAME_PREFIX);
    opt_frame_begin(size, 0, frame, tag, &tag_size);
    size += OPT_FRAME_PREFIX;
    int code = peer_memory_send(conn, letter, frame, size);
    if (code == EAGAIN || code == EWOULDBLOCK) {
        conn->files_ms = conn->files_ms != 0 ? conn->files_ms : conn_now(conn);
        conn->blocked = true;
        return false;
    }
    conn->files_ms = 0;
    if (code == ETOOMANYREFS) { /* others do not take theirs */
        peer_memory_forget(conn, letter);
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM,
                    "no more files can be handed over at present");
        return true;
    }
    if (code != 0) {
        conn_close(conn, uv_err_name(-code));
        return false;
    }
    counter_add(COUNTER_BYTES_SENT, size);
    counter_add(COUNTER_FRAMES_SENT, 1);
    conn->answers = letter->next;
    conn->outgoing--;
    conn_release(conn, letter);
    return true;
}

/* Whether one batch more may wait for the peer; if not, it is made when the one before
 * has been taken. */
static bool has_room_ahead(struct conn *conn)
{
    if (!charge_take(conn, BATCH_BYTES)) {
        return false;
    }
    charge_give(conn, BATCH_BYTES);
    return true;
}

/* Those that wait longest are served first when there is room (loop.c). */
static void starve(struct conn *conn)
{
    if (!conn->starved) {
        conn->starved = true;
        conn->starved_ms = conn_now(conn);
    }
}

void send_pump(struct conn *conn)
{
    uint64_t before = conn->loop->turn_cost;
    write_batches(conn);
    while ((conn->state == CONN_OPEN || conn->state == CONN_ENDING) &&
           conn->answers != NULL && conn->batch_count < AHEAD_BATCHES) {
        if (conn->answers->reply.message == OPT_MESSAGE_SHARE) {
            if (conn->batches != NULL || conn->blocked || !send_files(conn)) {
                return;
            }
            continue;
        }
        if (conn->batches != NULL && !has_room_ahead(conn)) {
            return;
        }
        if (!loop_may_go_on(conn->loop, before)) {
            conn->blocked = true; /* others have their turn */
            return;
        }
        bool waits = false;
        struct batch *batch = answer_frames_batch(conn, &waits);
        if (waits) {
            starve(conn);
            return;
        }
        conn->starved = false;
        if (batch == NULL) {
            conn_close(conn, "no memory");
            return;
        }
        write_batch(conn, batch);
    }
}

bool send_is_idle(const struct conn *conn)
{
    return conn->answers == NULL && conn->batches == NULL;
}

void send_abandon(struct conn *conn)
{
    while (conn->batches != NULL) {
        struct batch *batch = conn->batches;
        conn->batches = batch->next;
        batch_done(batch);
    }
    conn->batch_count = 0;
    conn->queue = 0;
    while (conn->answers != NULL) {
        struct letter *letter = conn->answers;
        conn->answers = letter->next;
        conn->outgoing--;
        conn_release(conn, letter);
    }
}

static void refuse(struct conn *conn, enum opt_status status, enum opt_detail detail,
                   const char *reason, const char *format, va_list arguments)
{
    char sentence[OPT_ERROR_TEXT];
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_WARN, "connection_refused",
                    "peer=%s worker=%s why=%s", conn_address(conn), conn->worker,
                    sentence);
    struct letter *letter = conn_letter(conn, 4 * OPT_ERROR_TEXT);
    if (letter == NULL) {
        conn_close(conn, reason);
        return;
    }
    conn->letters++;
    letter_fail(letter, status, detail, "%s", sentence);
    charge_update(conn, letter);
    if (conn->refused) {
        letter->reply.body.error.retry_after_ms = REFUSAL_RETRY_MS;
    }
    send_answer(conn, letter);
    conn_end(conn, reason);
}

void send_refusal(struct conn *conn, enum opt_status status, enum opt_detail detail,
                  const char *reason, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    refuse(conn, status, detail, reason, format, arguments);
    va_end(arguments);
}
