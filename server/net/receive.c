/* receive — see receive.h.
 *
 * A frame's header makes a letter; its data is read by libuv straight into the letter's
 * buffer, and while the bytes are in this core's cache they are checked: gradients for
 * NaN and infinity, everything against the request's checksum if it has one.
 */
#include "server/net/receive.h"

#include <inttypes.h>

#include "common/dtype.h"
#include "common/log.h"
#include "server/engine/engine.h"
#include "server/letter.h"
#include "server/messages/messages.h"
#include "server/net/counters.h"
#include "server/net/dispatch.h"
#include "server/net/hold.h"
#include "server/net/send.h"
#include "server/net/share.h"

enum {
    LIGHT_BYTES = 64 << 10
}; /* of data: its round costs little more than a wake-up */

/* Memory for the structs of one header: protobuf-c may need many times its bytes. */
static size_t arena_limit(const struct conn *conn)
{
    return 16 * conn->loop->all->limits.frame.header_bytes + (64 << 10);
}

static bool asks_for_table(const struct letter *letter)
{
    return letter->request.message == OPT_MESSAGE_LIST ||
           letter->request.message == OPT_MESSAGE_DESCRIBE;
}

static void set_pause(struct conn *conn, enum conn_pause pause)
{
    if (conn->pause == PAUSE_NONE && pause != PAUSE_NONE) {
        conn->paused_ms = uv_now(&conn->loop->uv);
        counter_add(COUNTER_READ_PAUSES, 1);
    } else if (conn->pause != PAUSE_NONE && pause == PAUSE_NONE) {
        conn_forgive(conn, uv_now(&conn->loop->uv) - conn->paused_ms);
    }
    conn->pause = pause;
}

/* Find room for the data of the frame whose header is here. False: wait, or the
 * connection ends. */
static bool place(struct conn *conn)
{
    struct letter *letter = conn->arriving;
    size_t size = opt_frame_data_size(conn->reader);
    enum conn_pause pause = PAUSE_NONE;
    if (asks_for_table(letter) && conn->tables >= TABLES_MAX) {
        pause = PAUSE_CONNECTION;
    } else {
        pause = hold_admit(conn, letter, size);
    }
    set_pause(conn, pause);
    if (pause == PAUSE_NONE) {
        conn->unplaced = false;
        if (asks_for_table(letter)) {
            conn->tables++;
        }
        if (size > 0 && !letter_data(letter, size)) {
            letter_fail(letter, OPT_RESOURCE_EXHAUSTED,
                        "no memory for %zu bytes of data", size);
            conn->unwanted = true;
        }
        if (letter->request.has_checksum && !conn->unwanted) {
            if (conn->hash == NULL) {
                conn->hash = XXH3_createState();
            }
            if (conn->hash == NULL) {
                conn_close(conn, "no memory");
                return false;
            }
            XXH3_64bits_reset(conn->hash);
        }
        opt_frame_place(conn->reader, conn->unwanted ? NULL : letter->data);
        return true;
    }
    if (pause == PAUSE_CONNECTION && hold_is_hopeless(conn)) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED,
                    "the unfinished pushes of this connection hold %zu bytes of the "
                    "%zu it may have in flight; join the model before pushing, push in "
                    "smaller parts, or raise the setting connection-inflight",
                    conn->bytes, hold_allowance(conn));
        conn->arriving = NULL;
        send_answer(conn, letter);
        conn_end(conn, "unfinished pushes too large");
    }
    return false;
}

static void on_header(struct conn *conn)
{
    struct loop *loop = conn->loop;
    struct letter *letter = loop_letter(loop, conn, arena_limit(conn));
    if (letter == NULL) {
        conn_close(conn, "no memory");
        return;
    }
    letter->began_ns = uv_hrtime();
    conn->letters++;
    conn->arriving = letter;
    conn->examined = 0;
    conn->scanned = 0;
    size_t size = 0;
    const uint8_t *header = opt_frame_header(conn->reader, &size);
    size_t data_size = opt_frame_data_size(conn->reader);
    conn->row = dispatch(conn, letter, header, size, data_size);
    share_release(conn, letter); /* which is true of a refused request as well */
    if (conn->row != NULL && !share_locate(conn, letter)) {
        conn->row = NULL;
    }
    conn->unwanted = conn->row == NULL;
    if (conn->unwanted) {
        opt_frame_place(conn->reader, NULL);
    } else {
        conn->unplaced = true;
    }
}

static void on_data(struct conn *conn)
{
    size_t filled = opt_frame_data_filled(conn->reader);
    if (conn->unwanted || filled == conn->examined) {
        return;
    }
    struct letter *letter = conn->arriving;
    if (letter->request.has_checksum) {
        XXH3_64bits_update(conn->hash, letter->data + conn->examined,
                           filled - conn->examined);
    }
    conn->examined = filled;
    if (conn->row->data == DATA_GRADIENT && letter->nonfinite == SIZE_MAX) {
        enum opt_dtype dtype = dispatch_dtype(letter);
        size_t element = opt_dtype_size(dtype);
        size_t count = (filled - conn->scanned) / element;
        size_t first =
            opt_dtype_first_nonfinite(dtype, letter->data + conn->scanned, count);
        if (first < count) {
            letter->nonfinite = conn->scanned / element + first;
        }
        conn->scanned += count * element;
    }
}

static void count_moved(struct conn *conn)
{
    uint64_t moved = opt_frame_moved(conn->reader);
    if (moved != conn->moved) {
        counter_add(COUNTER_DATA_MOVED, moved - conn->moved);
        conn->moved = moved;
    }
}

/* The frame is complete, and its request is refused. */
static void answer_refusal(struct conn *conn, struct letter *letter)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_INFO, "request_refused",
                    "peer=%s worker=%s id=%" PRIu64 " code=%s why=%s", conn->address,
                    conn->worker, letter->request.id,
                    opt_status_name(letter->reply.body.error.status),
                    letter->reply.body.error.text);
    counter_add(COUNTER_FRAMES_REFUSED, 1);
    /* Without its id an answer cannot be told from others, and of a push in several
     * frames the rest is useless: the end of the connection undoes it all. */
    bool fatal = letter->request.id == 0 || dispatch_is_part(letter) ||
                 hold_push_begun(conn, letter->request.id);
    send_answer(conn, letter);
    if (fatal) {
        conn_end(conn, "request refused");
    }
}

/* Whether the request is so short that the engine had better serve it on this thread.
 */
static bool is_light(const struct letter *letter)
{
    switch (letter->request.message) {
    case OPT_MESSAGE_PUSH:
    case OPT_MESSAGE_PUSH_PULL:
        return letter->data_size + letter->placed <= LIGHT_BYTES &&
               !dispatch_is_part(letter);
    case OPT_MESSAGE_PULL:
    case OPT_MESSAGE_WAIT:
    case OPT_MESSAGE_HEARTBEAT:
        return true;
    default:
        return false;
    }
}

static void on_end(struct conn *conn)
{
    struct letter *letter = conn->arriving;
    on_data(conn);
    count_moved(conn);
    if (!conn->unwanted) {
        share_examine(conn, letter);
    }
    counter_add(COUNTER_FRAMES_RECEIVED, 1);
    conn->arriving = NULL;
    conn->frames++;
    /* In a request without data it only asks for one in the answer. */
    if (!conn->unwanted && letter->request.has_checksum &&
        letter->data_size + letter->placed > 0) {
        uint64_t sum = opt_checksum(XXH3_64bits_digest(conn->hash));
        if (sum != letter->request.checksum) {
            letter_fail(letter, OPT_DATA_LOSS,
                        "the XXH3-64 of the data is %016" PRIx64
                        ", the request says %016" PRIx64,
                        sum, letter->request.checksum);
            conn->unwanted = true;
        }
    }
    if (!conn->unwanted && !hold_push_posted(conn, letter)) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED,
                    "%d pushes are begun and not finished on this connection; finish "
                    "one first",
                    PUSHES_MAX);
        conn->unwanted = true;
    }
    if (conn->unwanted) {
        answer_refusal(conn, letter);
        return;
    }
    if (letter->request.message == OPT_MESSAGE_HELLO) {
        conn->said_hello = true;
    }
    letter->arrived_ns = uv_hrtime();
    counter_add(COUNTER_RECEIVE_NS, letter->arrived_ns - letter->began_ns);
    struct mailbox *engine = engine_mailbox(conn->loop->all->engine);
    if (is_light(letter)) {
        mailbox_leave(engine, letter);
        conn->loop->has_left = true;
    } else {
        mailbox_post(engine, letter);
    }
}

void receive_advance(struct conn *conn)
{
    while (conn->state == CONN_OPEN && conn->loop->stops == 0) {
        if (conn->unplaced && !place(conn)) {
            return;
        }
        if (conn->arriving == NULL && hold_letters_full(conn)) {
            set_pause(conn, PAUSE_LETTERS);
            if (hold_is_hopeless(conn)) {
                conn_refuse(conn, OPT_RESOURCE_EXHAUSTED, "too many unfinished frames",
                            "%zu frames of unfinished pushes are in flight on this "
                            "connection; push in larger frames",
                            conn->letters);
            }
            return;
        }
        set_pause(conn, PAUSE_NONE);
        switch (opt_frame_next(conn->reader)) {
        case OPT_FRAME_MORE:
            return;
        case OPT_FRAME_HEADER:
            on_header(conn);
            break;
        case OPT_FRAME_DATA:
            on_data(conn);
            break;
        case OPT_FRAME_END:
            on_end(conn);
            break;
        case OPT_FRAME_BROKEN:
            counter_add(COUNTER_FRAMES_REFUSED, 1);
            conn_refuse(conn, opt_frame_error(conn->reader)->status, "broken frame",
                        "%s", opt_frame_error(conn->reader)->text);
            return;
        }
    }
}

void receive_abandon(struct conn *conn)
{
    if (conn->arriving != NULL) {
        struct letter *letter = conn->arriving;
        conn->arriving = NULL;
        conn_release(conn, letter);
    }
    conn->unplaced = false;
}
