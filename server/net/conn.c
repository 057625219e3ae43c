/* conn — see conn.h: the life of a connection and its deadlines. */
#include "server/net/conn.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "server/engine/engine.h"
#include "server/net/counters.h"
#include "server/net/hold.h"
#include "server/net/receive.h"
#include "server/net/refusal.h"
#include "server/net/send.h"
#include "server/net/share.h"
#include "server/net/socket.h"

enum {
    /* At a time: what has been read is looked at while this core's cache has it. */
    READ_BYTES = 256 << 10
};

static const struct net_limits *limits_of(const struct conn *conn)
{
    return &conn->loop->all->limits;
}

static uint64_t now_of(const struct conn *conn)
{
    return uv_now(&conn->loop->uv);
}

/* Workers' coming and going is news, and so is whom the daemon sends away; observers
 * ask something and go, health checks do not even ask, and both do so every few
 * seconds. */
static enum opt_log_level level_of(const struct conn *conn, bool news)
{
    return conn->is_worker || news ? OPT_LOG_INFO : OPT_LOG_DEBUG;
}

/* ------------------------------------------------------------------- letters */

void conn_release(struct conn *conn, struct letter *letter)
{
    conn->tables -= letter->is_table;
    hold_release(conn, letter);
    conn->letters--;
    loop_letter_done(conn->loop, letter);
    loop_ready(conn->loop, conn);
}

static void on_hello_answered(struct conn *conn, const struct letter *letter)
{
    if (letter->reply.message != OPT_MESSAGE_HELLO) {
        conn->said_hello = conn->let_in; /* it may have been the second */
        return;
    }
    conn->let_in = true;
    const struct opt_hello *hello = &letter->request.body.hello;
    conn->lease_ms = letter->reply.body.hello.lease_ms;
    conn->answer_bytes = hello->max_frame_bytes;
    conn->beat_ms = letter->reply.body.hello.heartbeat_ms;
    conn->is_worker = hello->worker[0] != '\0';
    snprintf(conn->worker, sizeof(conn->worker), "%s", hello->worker);
    static struct opt_log_site site;
    opt_log_limited(&site, level_of(conn, false), "hello",
                    "peer=%s worker=%s client=%s incarnation=%" PRIu64, conn->address,
                    hello->worker, hello->client, letter->reply.body.hello.incarnation);
}

void conn_returned(struct conn *conn, struct letter *letter)
{
    if (letter->kind == LETTER_PART) {
        conn->letters++; /* from now on it is one of the connection's */
        hold_sync(conn, letter);
        if (conn->state > CONN_ENDING) {
            conn_release(conn, letter);
        } else {
            send_answer(conn, letter);
        }
        return;
    }
    hold_push_returned(conn, letter);
    if (letter->allowance > 0) {
        hold_grant(conn, letter->allowance, letter->granted);
    }
    if (conn->state > CONN_ENDING || letter->silent) {
        conn_release(conn, letter);
        return;
    }
    /* The data has served; what the answer still waits for does not need it. */
    letter_drop_data(letter);
    letter->ahead = 0;
    hold_sync(conn, letter); /* before others can take what was paid for it */
    letter_refund(letter, letter->paid);
    if (letter->request.message == OPT_MESSAGE_HELLO) {
        on_hello_answered(conn, letter);
    }
    share_note(conn, letter);
    bool hang_up = letter->hang_up;
    conn->left = conn->left || hang_up;
    send_answer(conn, letter);
    if (hang_up) {
        conn_end(conn, "goodbye");
    }
}

/* ------------------------------------------------------------------- the end */

/* Tell the engine that nothing more comes. */
static void bid_farewell(struct conn *conn, bool lease_expired, uint64_t silent_ms)
{
    if (conn->farewell != NULL) {
        struct letter *letter = conn->farewell;
        conn->farewell = NULL;
        letter->lease_expired = lease_expired;
        letter->silent_ms = silent_ms;
        conn->loop->farewells++;
        mailbox_post(engine_mailbox(conn->loop->all->engine), letter);
    }
}

static void enter(struct conn *conn, enum conn_state state, const char *reason)
{
    if (conn->reason == NULL) {
        conn->reason = reason;
    }
    conn->state = state;
    conn->since_ms = now_of(conn);
}

static void on_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    struct loop *loop = conn->loop;
    conn->closed = true;
    share_close(conn); /* not before: see share.h */
    if (conn->refused) {
        atomic_fetch_sub(&loop->all->refusals, 1);
    } else {
        atomic_fetch_sub(&loop->all->connections, 1);
        counter_subtract(COUNTER_CONNECTIONS, 1);
        static struct opt_log_site site;
        opt_log_limited(&site, level_of(conn, !conn->left), "connection_closed",
                        "peer=%s worker=%s why=%s frames=%" PRIu64, conn->address,
                        conn->worker, conn->reason, conn->frames);
    }
    loop_ready(loop, conn);
    loop_settle(loop);
}

void conn_close(struct conn *conn, const char *reason)
{
    if (conn->state == CONN_CLOSING) {
        return;
    }
    enter(conn, CONN_CLOSING, reason);
    bid_farewell(conn, false, 0);
    receive_abandon(conn);
    send_abandon(conn);
    uv_close(&conn->handle.any, on_closed);
}

void conn_end(struct conn *conn, const char *reason)
{
    if (conn->state != CONN_OPEN) {
        return;
    }
    enter(conn, CONN_ENDING, reason);
    conn->written_ms = now_of(conn);
    receive_abandon(conn);
    conn_update_reading(conn);
    loop_ready(conn->loop, conn);
}

static void refuse(struct conn *conn, enum opt_status status, enum opt_detail detail,
                   const char *reason, const char *format, va_list arguments)
{
    char sentence[OPT_ERROR_TEXT];
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_WARN, "connection_refused",
                    "peer=%s worker=%s why=%s", conn->address, conn->worker, sentence);
    struct letter *letter =
        letter_new(&conn->loop->box, conn, conn->peer, 4 * OPT_ERROR_TEXT);
    if (letter == NULL) {
        conn_close(conn, reason);
        return;
    }
    conn->letters++;
    letter_fail(letter, status, detail, "%s", sentence);
    hold_sync(conn, letter);
    if (conn->refused) {
        letter->reply.body.error.retry_after_ms = REFUSAL_RETRY_MS;
    }
    send_answer(conn, letter);
    conn_end(conn, reason);
}

void conn_refuse(struct conn *conn, enum opt_status status, enum opt_detail detail,
                 const char *reason, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    refuse(conn, status, detail, reason, format, arguments);
    va_end(arguments);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct conn *conn = request->data;
    struct loop *loop = conn->loop;
    if (status != 0) {
        conn_close(conn, uv_err_name(status));
    }
    loop_settle(loop);
}

/* All is sent. Closing now would turn bytes that the peer has sent in the meantime into
 * a reset, which may overtake the last answer: so say that nothing more comes, and wait
 * for the peer to close. */
static void linger(struct conn *conn)
{
    enter(conn, CONN_LINGERING, "ended");
    bid_farewell(conn, false, 0);
    conn->shutdown.data = conn;
    int code = uv_shutdown(&conn->shutdown, &conn->handle.stream, on_shutdown);
    if (code != 0) {
        conn_close(conn, uv_err_name(code));
        return;
    }
    conn_update_reading(conn);
}

static void conn_free(struct conn *conn)
{
    hold_give(conn, conn->header_bytes);
    hold_grant(conn, 0, 0);
    if (conn->previous != NULL) {
        conn->previous->next = conn->next;
    } else {
        conn->loop->conns = conn->next;
    }
    if (conn->next != NULL) {
        conn->next->previous = conn->previous;
    }
    opt_frame_reader_free(conn->reader);
    XXH3_freeState(conn->hash);
    free(conn->sharing);
    free(conn);
}

void conn_serve(struct conn *conn)
{
    if (conn->state == CONN_OPEN && conn->pause != PAUSE_NONE) {
        receive_advance(conn);
        conn_update_reading(conn);
    }
    send_pump(conn);
    if (conn->state == CONN_ENDING && send_is_idle(conn)) {
        linger(conn);
    }
    if (conn->closed && conn->letters == 0 && !conn->is_ready) {
        conn_free(conn);
    }
}

/* ------------------------------------------------------------------- reading */

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct conn *conn = handle->data;
    if (conn->state != CONN_OPEN) {
        *out = uv_buf_init(conn->loop->discard, LOOP_DISCARD);
        return;
    }
    uint8_t *base = NULL;
    size_t size = 0;
    opt_frame_lend(conn->reader, conn->loop->ahead);
    opt_frame_space(conn->reader, &base, &size);
    *out = uv_buf_init((char *)base, size < READ_BYTES ? (unsigned)size : READ_BYTES);
}

static void receive(struct conn *conn, size_t size)
{
    counter_add(COUNTER_BYTES_RECEIVED, size);
    uint64_t frames = conn->frames;
    bool was_pending = opt_frame_pending(conn->reader);
    conn->heard_ms = now_of(conn);
    if (conn->loop->spin_ns > 0) {
        conn->loop->heard_ns = uv_hrtime();
    }
    opt_frame_received(conn->reader, size);
    receive_advance(conn);
    if (!was_pending || conn->frames != frames) {
        conn->frame_ms = conn->heard_ms;
        conn->frame_bytes = 0;
    }
    conn->frame_bytes += size;
    conn_update_reading(conn);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    (void)buffer;
    struct conn *conn = stream->data;
    struct loop *loop = conn->loop;
    if (size < 0) {
        conn->left = true;
        conn_close(conn, size == UV_EOF ? "closed by peer" : uv_err_name((int)size));
    } else if (size > 0 && conn->state == CONN_OPEN) {
        receive(conn, (size_t)size);
    }
    if (!opt_frame_take_back(conn->reader)) {
        conn_close(conn, "no memory");
    }
    loop_ready(loop, conn);
    loop_settle(loop);
}

void conn_update_reading(struct conn *conn)
{
    bool wanted = conn->state == CONN_LINGERING ||
                  (conn->state == CONN_OPEN && conn->pause == PAUSE_NONE &&
                   conn->loop->stops == 0);
    if (wanted == conn->reading || conn->state == CONN_CLOSING) {
        return;
    }
    uv_stream_t *stream = &conn->handle.stream;
    conn->reading = wanted;
    if (!wanted) {
        uv_read_stop(stream);
        return;
    }
    int code = uv_read_start(stream, on_allocate, on_read);
    if (code != 0) {
        conn_close(conn, uv_err_name(code));
    }
}

/* ------------------------------------------------------------------ deadlines */

static void check_room(struct conn *conn, uint64_t now)
{
    if (conn->pause == PAUSE_BUDGET &&
        now - conn->paused_ms > limits_of(conn)->room_ms) {
        conn_refuse(conn, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM, "no room",
                    "no room for this request within %" PRIu32
                    " ms: all connections together hold the %zu bytes that the setting "
                    "inflight allows",
                    limits_of(conn)->room_ms, limits_of(conn)->inflight_bytes);
    }
}

static void check_frame(struct conn *conn, uint64_t now)
{
    const struct net_limits *limits = limits_of(conn);
    uint64_t elapsed = now - conn->frame_ms;
    if (opt_frame_pending(conn->reader) && elapsed > limits->frame_ms &&
        conn->frame_bytes < elapsed * limits->frame_rate / 1000) {
        conn_refuse(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_TOO_SLOW, "frame too slow",
                    "a frame has been arriving for %" PRIu64 " ms, %" PRIu64
                    " bytes so far; it may take %" PRIu32
                    " ms, and longer only at %" PRIu32 " bytes a second or more",
                    elapsed, conn->frame_bytes, limits->frame_ms, limits->frame_rate);
    }
}

static void check_lease(struct conn *conn, uint64_t now)
{
    uint64_t silent = now - conn->heard_ms;
    if (conn->lease_ms > 0 && silent > conn->lease_ms) {
        counter_add(COUNTER_LEASES_EXPIRED, 1);
        bid_farewell(conn, true, silent);
        conn_refuse(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_SILENT, "lease expired",
                    "silent for %" PRIu64 " ms; the lease of worker %s is %" PRIu32
                    " ms, send heartbeats",
                    silent, conn->worker, conn->lease_ms);
    }
}

static void check_silence(struct conn *conn, uint64_t now)
{
    uint64_t silent = now - conn->heard_ms;
    if (!conn->said_hello) {
        uint32_t allowed = limits_of(conn)->hello_ms;
        if (now - conn->since_ms > allowed) {
            conn_refuse(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_SILENT, "no hello",
                        "no hello within %" PRIu32 " ms", allowed);
        }
    } else if (conn->is_worker) {
        check_lease(conn, now);
    } else if (conn->letters == 0 && silent > limits_of(conn)->idle_ms) {
        conn_refuse(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_SILENT, "idle",
                    "nothing asked for %" PRIu64
                    " ms; an observer may be silent for %" PRIu32 " ms",
                    silent, limits_of(conn)->idle_ms);
    }
}

/* Tell a peer that is held back that the daemon lives. */
static void beat(struct conn *conn, uint64_t now)
{
    static struct opt_log_site site;
    if (conn->beaten_ms < conn->paused_ms) {
        opt_log_limited(&site, OPT_LOG_INFO, "connection_held_back",
                        "peer=%s worker=%s bytes=%zu requests=%zu why=%s",
                        conn->address, conn->worker, conn->bytes, conn->letters,
                        conn->pause == PAUSE_BUDGET   ? "inflight"
                        : conn->pause == PAUSE_OUTBOX ? "answers not read"
                                                      : "connection-inflight");
    }
    struct letter *letter = loop_letter(conn->loop, conn, OPT_ERROR_TEXT);
    if (letter != NULL) {
        conn->beaten_ms = now;
        conn->letters++;
        letter->reply.message = OPT_MESSAGE_HEARTBEAT;
        hold_sync(conn, letter);
        send_answer(conn, letter);
    }
}

/* A connection that the daemon does not read from, for want of room, cannot be judged
 * by what it says: its heartbeats lie behind a push, and so does the end of a process
 * that was killed, because its kernel still has to deliver the push before it. So the
 * daemon speaks, as often as a worker should. To the peer that says that the daemon
 * lives. And it finds out about the peer: the kernel answers it with a reset if the
 * process is gone (RFC 1122, 4.2.2.13), and with an acknowledgement, the sign of life
 * that stands in for those that are not read, if it is not. A machine that is gone
 * answers nothing, and its lease ends as ever. A process that is stopped, but not dead,
 * is found when there is room again; clients that keep within inflight_bytes never get
 * here. */
static void watch_held_back(struct conn *conn, uint64_t now)
{
    uv_os_fd_t socket;
    if (uv_fileno(&conn->handle.any, &socket) != 0 || socket_has_ended(socket)) {
        conn_close(conn, "closed by peer");
        return;
    }
    uint64_t silent = socket_silence_ms(socket);
    if (silent < now - conn->heard_ms) {
        conn->heard_ms = now - silent;
    }
    if (conn->is_worker) {
        check_lease(conn, now);
    }
    if (conn->state == CONN_OPEN && conn->beat_ms > 0 && send_is_idle(conn) &&
        now - conn->paused_ms >= conn->beat_ms &&
        now - conn->beaten_ms >= conn->beat_ms) {
        beat(conn, now);
    }
}

/* It must not only move. Whoever reads little by little holds what others need, so the
 * rate is that of the time since nothing was left to send, or of the last write-timeout
 * in which it was high enough. */
static void check_rate(struct conn *conn, uint64_t now, size_t queue)
{
    static struct opt_log_site site;
    const struct net_limits *limits = limits_of(conn);
    uint64_t taken = conn->queued - queue;
    uint64_t elapsed = now - conn->rate_ms;
    /* Whoever reads nothing any more is the business of check_writing. */
    if (queue > 0 && (elapsed <= limits->write_ms || queue == conn->written_queue)) {
        return;
    }
    uint64_t bytes = taken - conn->rate_bytes;
    conn->rate_ms = now;
    conn->rate_bytes = taken;
    if (queue > 0 && bytes < elapsed * limits->write_rate / 1000) {
        opt_log_limited(
            &site, OPT_LOG_WARN, "reader_too_slow",
            "peer=%s worker=%s bytes=%" PRIu64 " ms=%" PRIu64 " least_rate=%" PRIu32,
            conn->address, conn->worker, bytes, elapsed, limits->write_rate);
        conn_close(conn, "reads too slowly");
    }
}

/* What is to be sent must move. */
static void check_writing(struct conn *conn, uint64_t now)
{
    size_t queue = uv_stream_get_write_queue_size(&conn->handle.stream);
    check_rate(conn, now, queue);
    if (conn->state == CONN_CLOSING) {
        return;
    }
    if (conn->files_ms != 0) { /* libuv does not know of them, and so cannot tell */
        if (now - conn->files_ms > limits_of(conn)->write_ms) {
            conn_close(conn, "reads nothing");
        } else {
            loop_ready(conn->loop, conn);
        }
        return;
    }
    if (queue == 0 || queue != conn->written_queue) {
        if (queue > 0 && queue < conn->written_queue) {
            /* Somebody reads at the other end, so it lives. */
            conn->heard_ms = now;
        }
        conn->written_ms = now;
        conn->written_queue = queue;
        return;
    }
    uint64_t allowed =
        conn->state == CONN_ENDING ? LINGER_MS : limits_of(conn)->write_ms;
    if (now - conn->written_ms > allowed) {
        conn_close(conn, "reads nothing");
    }
}

/* A worker was refused a moment ago what readers hold: guests that have had their time
 * give way, however fast they read. */
static void check_need(struct conn *conn, uint64_t now)
{
    static struct opt_log_site site;
    const uint64_t moment_ns = UINT64_C(2000000000);
    uint64_t refused_ns = engine_refused_ns(conn->loop->all->engine);
    if (conn->outgoing == 0 || !hold_is_guest(conn) || refused_ns == 0 ||
        now - conn->outgoing_ms <= limits_of(conn)->write_ms ||
        uv_hrtime() - refused_ns > moment_ns) {
        return;
    }
    opt_log_limited(&site, OPT_LOG_WARN, "reader_gives_way",
                    "peer=%s ms=%" PRIu64 " why=\"%s\"", conn->address,
                    now - conn->outgoing_ms, "a worker needs the memory that it holds");
    conn_close(conn, "reads what a worker needs the memory of");
}

void conn_tick(struct conn *conn, uint64_t now_ms)
{
    switch (conn->state) {
    case CONN_OPEN:
        if (conn->loop->stops == 0 && conn->pause != PAUSE_NONE) {
            check_room(conn, now_ms);
            if (conn->state == CONN_OPEN) {
                watch_held_back(conn, now_ms);
            }
        } else if (conn->loop->stops == 0) {
            check_frame(conn, now_ms);
            if (conn->state == CONN_OPEN) {
                check_silence(conn, now_ms);
            }
        }
        check_writing(conn, now_ms);
        if (conn->state == CONN_OPEN) {
            check_need(conn, now_ms);
        }
        break;
    case CONN_ENDING:
        check_writing(conn, now_ms);
        break;
    case CONN_LINGERING:
        if (now_ms - conn->since_ms > LINGER_MS) {
            conn_close(conn, "ended");
        }
        break;
    case CONN_CLOSING:
        break;
    }
}

/* Some may have been set since the time that is forgiven began, and none may come to
 * lie in the future: what is counted from then would be an age. */
static uint64_t moved_up(const struct conn *conn, uint64_t then, uint64_t ms)
{
    uint64_t now = now_of(conn);
    return now - then < ms ? now : then + ms;
}

void conn_forgive(struct conn *conn, uint64_t ms)
{
    conn->since_ms = moved_up(conn, conn->since_ms, ms);
    conn->heard_ms = moved_up(conn, conn->heard_ms, ms);
    conn->frame_ms = moved_up(conn, conn->frame_ms, ms);
    conn->rate_ms = moved_up(conn, conn->rate_ms, ms);
}

/* ---------------------------------------------------------------------- begin */

/* The parts of a connection that need memory. */
static bool equip(struct conn *conn)
{
    conn->reader = opt_frame_reader_new(limits_of(conn)->frame);
    if (conn->reader == NULL || conn->refused) {
        return conn->reader != NULL;
    }
    struct letter *farewell = letter_new(&conn->loop->box, NULL, NULL, 0);
    if (farewell == NULL) {
        return false;
    }
    conn->peer = peer_new(conn->address);
    if (conn->peer == NULL) {
        letter_free(farewell);
        return false;
    }
    farewell->kind = LETTER_CLOSED;
    farewell->peer = conn->peer;
    conn->farewell = farewell;
    return true;
}

static void forget_socket(struct loop *loop, int socket, bool refuse)
{
    close(socket);
    atomic_fetch_sub(refuse ? &loop->all->refusals : &loop->all->connections, 1);
}

static void introduce(struct conn *conn, int socket)
{
    struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
    socklen_t size = sizeof(address);
    (void)getpeername(socket, (struct sockaddr *)&address, &size);
    socket_peer_name(socket, (struct sockaddr *)&address, conn->address,
                     sizeof(conn->address));
    socket_tune(socket, (struct sockaddr *)&address, limits_of(conn)->user_timeout_ms,
                limits_of(conn)->congestion);
    if (address.ss_family == AF_UNIX && limits_of(conn)->shares_memory) {
        conn->sharing = sharing_new();
    }
}

void conn_open(struct loop *loop, int socket, bool refuse)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL || uv_tcp_init(&loop->uv, &conn->handle.tcp) != 0) {
        free(conn);
        forget_socket(loop, socket, refuse);
        return;
    }
    conn->loop = loop;
    conn->refused = refuse;
    conn->handle.any.data = conn;
    conn->since_ms = now_of(conn);
    conn->heard_ms = conn->since_ms;
    conn->written_ms = conn->since_ms;
    conn->rate_ms = conn->since_ms;
    conn->next = loop->conns;
    if (conn->next != NULL) {
        conn->next->previous = conn;
    }
    loop->conns = conn;
    introduce(conn, socket);
    if (!refuse) {
        counter_add(COUNTER_CONNECTIONS, 1);
        counter_add(COUNTER_CONNECTIONS_OPENED, 1);
        opt_log(OPT_LOG_DEBUG, "connection_opened", "peer=%s loop=%d", conn->address,
                loop->number);
    }
    int code = uv_tcp_open(&conn->handle.tcp, socket);
    if (code != 0) {
        close(socket);
        conn_close(conn, uv_err_name(code));
    } else if (!equip(conn)) {
        conn_close(conn, "no memory");
    } else if (refuse) {
        char text[OPT_ERROR_TEXT];
        refusal_sentence(limits_of(conn)->connections, text, sizeof(text));
        conn_refuse(conn, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                    "too many connections", "%s", text);
    } else {
        conn_update_reading(conn);
    }
    loop_ready(loop, conn);
}

void conn_finish(struct conn *conn)
{
    /* One that is closing already has said all it can say. */
    if (conn->state != CONN_OPEN) {
        return;
    }
    conn_refuse(conn, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING, "daemon stopping",
                "the daemon is stopping");
}
