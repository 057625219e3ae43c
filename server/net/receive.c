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
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/messages/messages.h"
#include "server/net/charge.h"
#include "server/net/dispatch.h"
#include "server/net/open_pushes.h"
#include "server/net/peer_memory.h"
#include "server/net/send.h"
#include "server/turn/engine.h"

enum {
    LIGHT_BYTES = 64 << 10, /* of data: its round costs little more than a wake-up */
    FRAME_COST = 512,       /* of a frame, */
    HEADER_BYTE_COST = 16,  /* of each byte of its header as it is read, */
    BYTES_EXAMINED = 16     /* and so many bytes of data are one unit (loop_done) */
};

/* Memory for the structs of one header, which protobuf-c may need many times its bytes
 * for, and for the texts of an answer. */
static size_t arena_limit(size_t header)
{
    return 16 * header + (1 << 20);
}

static bool asks_for_table(const struct letter *letter)
{
    return letter->request.message == OPT_MESSAGE_LIST ||
           letter->request.message == OPT_MESSAGE_DESCRIBE;
}

static void set_pause(struct conn *conn, enum conn_pause pause)
{
    if (conn->pause == PAUSE_NONE && pause != PAUSE_NONE) {
        conn->paused_ms = conn_now(conn);
        counter_add(COUNTER_READ_PAUSES, 1);
    } else if (conn->pause != PAUSE_NONE && pause == PAUSE_NONE) {
        /* That it was not read is no excuse for not reading. */
        uint64_t rate_ms = conn->rate_ms;
        conn_forgive(conn, conn_now(conn) - conn->paused_ms);
        conn->rate_ms = rate_ms;
    }
    conn->pause = pause;
}

/* Wait for room, unless nothing could make it. */
static void wait_for_room(struct conn *conn, enum conn_pause pause, uint64_t id)
{
    struct letter *letter = conn->arriving;
    set_pause(conn, pause);
    if (pause != PAUSE_CONNECTION || !open_pushes_hold_all(conn)) {
        return;
    }
    letter->request.id = id;
    letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                "the unfinished pushes of this connection hold %zu bytes of the "
                "%zu it may have in flight; join the model before pushing, push in "
                "smaller parts, or raise the setting connection-inflight",
                conn->bytes, charge_allowance(conn));
    conn->arriving = NULL;
    charge_update(conn, letter);
    send_answer(conn, letter);
    conn_end(conn, "unfinished pushes too large");
}

static bool begin_letter(struct conn *conn)
{
    struct letter *letter = conn_letter(conn, 0);
    if (letter == NULL) {
        conn_close(conn, "no memory");
        return false;
    }
    letter->began_ns = uv_hrtime();
    letter->room = &conn->loop->all->quota;
    conn->letters++;
    conn->arriving = letter;
    conn->examined = 0;
    conn->scanned = 0;
    return true;
}

/* A header part is longer than what the reader has. Before hello that is no peer of
 * ours. False: wait, or the connection ends. */
static bool place_long(struct conn *conn)
{
    size_t wanted = opt_frame_wanted(conn->reader);
    if (!conn->said_hello) {
        send_refusal(conn, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_HELLO, "no hello",
                     "a request of more than %d bytes came before hello, which is the "
                     "first request of a connection",
                     OPT_FRAME_STAGE);
        return false;
    }
    /* The old memory is there until the new one is. */
    if (!charge_take(conn, wanted)) {
        set_pause(conn, PAUSE_BUDGET);
        return false;
    }
    bool grown = opt_frame_grow(conn->reader);
    charge_give(conn, wanted);
    charge_header(conn);
    if (!grown) {
        conn_close(conn, "no memory");
    }
    return grown;
}

/* Find room for data that comes before the header. Whatever may be asked before hello
 * has none. False: wait, or the connection ends. */
static bool place_early(struct conn *conn)
{
    size_t size = opt_frame_data_size(conn->reader);
    conn->thrown = size > 0;
    if (!conn->said_hello || size == 0) {
        opt_frame_place(conn->reader, NULL);
        return true;
    }
    if (conn->arriving == NULL && !begin_letter(conn)) {
        return false;
    }
    struct letter *letter = conn->arriving;
    enum conn_pause pause = charge_letter(conn, letter, size);
    if (pause != PAUSE_NONE) {
        wait_for_room(conn, pause, 0);
        return false;
    }
    conn->thrown = !letter_data(letter, size);
    charge_update(conn, letter);
    opt_frame_place(conn->reader, letter->data);
    return true;
}

/* Room for the data of a request that is wanted. False: the connection ends. */
static bool place_data(struct conn *conn)
{
    struct letter *letter = conn->arriving;
    size_t size = opt_frame_data_size(conn->reader);
    if (size > 0 && (conn->thrown || !letter_data(letter, size))) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for %zu bytes of data", size);
        conn->unwanted = true;
    }
    charge_update(conn, letter);
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

/* What the engine takes to serve it: to let it wait, and of a push the segments as it
 * resolves them. */
static size_t ahead_of(const struct letter *letter)
{
    enum { WAITING_BYTES = 512 };
    const struct opt_push *push = letter_push(letter);
    return WAITING_BYTES +
           (push != NULL ? push->segment_count * 2 * sizeof(struct opt_segment) : 0);
}

/* Read the header, and find room for the request and its data. Where there is none,
 * nothing is kept of what was read: the reader has the header still. False: wait, or
 * the connection ends. */
static bool place_request(struct conn *conn)
{
    struct letter *letter = conn->arriving;
    size_t size = 0;
    const uint8_t *header = opt_frame_header(conn->reader, &size);
    size_t data_size = opt_frame_data_size(conn->reader);
    letter->arena.limit = arena_limit(size);
    loop_done(conn->loop, HEADER_BYTE_COST * (uint64_t)size);
    conn->row = dispatch(conn, letter, header, size, data_size);
    letter->ahead = ahead_of(letter);
    bool is_table = conn->row != NULL && asks_for_table(letter);
    bool comes = conn->row != NULL && !opt_frame_is_early(conn->reader);
    enum conn_pause pause = is_table && conn->tables >= TABLES_MAX
                                ? PAUSE_OUTBOX
                                : charge_letter(conn, letter, comes ? data_size : 0);
    if (pause != PAUSE_NONE) {
        uint64_t id = letter->request.id;
        if (!conn->let_in) { /* there may be a token in it; it is read again */
            opt_arena_wipe(&letter->arena);
        }
        letter_forget(letter);
        wait_for_room(conn, pause, id);
        return false;
    }
    if (!conn->let_in) { /* there may be a token in it */
        opt_frame_forget(conn->reader);
    }
    letter->guest = charge_is_guest(conn);
    letter->is_table = is_table;
    conn->tables += is_table;
    peer_memory_release(conn, letter); /* which is true of a refused request as well */
    conn->unwanted = conn->row == NULL || !peer_memory_locate(conn, letter);
    if (conn->unwanted) {
        charge_update(conn, letter);
        opt_frame_place(conn->reader, NULL);
        return true;
    }
    return place_data(conn);
}

/* Go on with what waited for room. False: it waits still, or the connection ends. */
static bool go_on(struct conn *conn)
{
    bool placed = true;
    switch (conn->arrival) {
    case ARRIVAL_FREE:
        return true;
    case ARRIVAL_LONG:
        placed = place_long(conn);
        break;
    case ARRIVAL_EARLY:
        placed = place_early(conn);
        break;
    case ARRIVAL_HEADER:
        placed = (conn->arriving != NULL || begin_letter(conn)) && place_request(conn);
        break;
    }
    if (placed) {
        conn->arrival = ARRIVAL_FREE;
        set_pause(conn, PAUSE_NONE);
    }
    return placed;
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
    loop_done(conn->loop, (filled - conn->examined) / BYTES_EXAMINED);
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
                    "peer=%s worker=%s id=%" PRIu64 " code=%s why=%s",
                    conn_address(conn), conn->worker, letter->request.id,
                    opt_status_name(letter->reply.body.error.status),
                    letter->reply.body.error.text);
    counter_add(COUNTER_FRAMES_REFUSED, 1);
    /* Without its id an answer cannot be told from others, and of a push in several
     * frames the rest is useless: the end of the connection undoes it all. */
    bool fatal = letter->request.id == 0 || dispatch_is_part(letter) ||
                 open_pushes_has(conn, letter->request.id);
    letter_drop_data(letter);
    charge_update(conn, letter);
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
        peer_memory_examine(conn, letter);
    }
    counter_add(COUNTER_FRAMES_RECEIVED, 1);
    loop_done(conn->loop, FRAME_COST + letter->placed / BYTES_EXAMINED);
    conn->arriving = NULL;
    conn->frames++;
    conn->thrown = false;
    /* In a request without data it only asks for one in the answer. */
    if (!conn->unwanted && letter->request.has_checksum &&
        letter->data_size + letter->placed > 0) {
        uint64_t sum = opt_checksum(XXH3_64bits_digest(conn->hash));
        if (sum != letter->request.checksum) {
            letter_fail(letter, OPT_DATA_LOSS, OPT_DETAIL_NONE,
                        "the XXH3-64 of the data is %016" PRIx64
                        ", the request says %016" PRIx64,
                        sum, letter->request.checksum);
            conn->unwanted = true;
        }
    }
    if (!conn->unwanted && !open_pushes_post(conn, letter)) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
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

/* Whether the next request has to wait for answers to those before. */
static bool is_full(struct conn *conn)
{
    if (conn->arriving != NULL || conn->arrival != ARRIVAL_FREE) {
        return false;
    }
    if (conn->outgoing >= OUTBOX_LETTERS) {
        set_pause(conn, PAUSE_OUTBOX);
        return true;
    }
    if (!charge_letters_full(conn)) {
        return false;
    }
    set_pause(conn, PAUSE_LETTERS);
    if (open_pushes_hold_all(conn)) {
        send_refusal(conn, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                     "too many unfinished frames",
                     "%zu frames of unfinished pushes are in flight on this "
                     "connection; push in larger frames",
                     conn->letters);
    }
    return true;
}

/* As far as possible; what it leaves is said by pause and state. */
static void advance(struct conn *conn)
{
    while (conn->state == CONN_OPEN && conn->loop->stops == 0) {
        if (!go_on(conn) || is_full(conn)) {
            return;
        }
        set_pause(conn, PAUSE_NONE);
        switch (opt_frame_next(conn->reader)) {
        case OPT_FRAME_MORE:
            return;
        case OPT_FRAME_LONG:
            conn->arrival = ARRIVAL_LONG;
            break;
        case OPT_FRAME_EARLY:
            conn->arrival = ARRIVAL_EARLY;
            break;
        case OPT_FRAME_HEADER:
            conn->arrival = ARRIVAL_HEADER;
            break;
        case OPT_FRAME_DATA:
            on_data(conn);
            break;
        case OPT_FRAME_END:
            on_end(conn);
            break;
        case OPT_FRAME_BROKEN:
            counter_add(COUNTER_FRAMES_REFUSED, 1);
            send_refusal(conn, opt_frame_error(conn->reader)->status,
                         opt_frame_error(conn->reader)->status == OPT_INVALID_ARGUMENT
                             ? OPT_DETAIL_MALFORMED
                             : OPT_DETAIL_TOO_LARGE,
                         "broken frame", "%s", opt_frame_error(conn->reader)->text);
            return;
        }
    }
}

void receive_advance(struct conn *conn)
{
    advance(conn);
    charge_header(conn);
}

void receive_abandon(struct conn *conn)
{
    if (conn->arriving != NULL) {
        struct letter *letter = conn->arriving;
        conn->arriving = NULL;
        conn_release(conn, letter);
    }
    conn->arrival = ARRIVAL_FREE;
}
