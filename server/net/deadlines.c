/* deadlines — see deadlines.h. */
#include "server/net/deadlines.h"

#include <inttypes.h>

#include "common/log.h"
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/net/charge.h"
#include "server/net/send.h"
#include "server/turn/engine.h"

static void check_room(struct conn *conn, uint64_t now)
{
    if (conn->pause == PAUSE_BUDGET &&
        now - conn->paused_ms > conn_limits(conn)->room_ms) {
        send_refusal(
            conn, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM, "no room",
            "no room for this request within %" PRIu32
            " ms: all connections together hold the %zu bytes that the setting "
            "inflight allows",
            conn_limits(conn)->room_ms, conn_limits(conn)->inflight_bytes);
    }
}

static void check_frame(struct conn *conn, uint64_t now)
{
    const struct net_limits *limits = conn_limits(conn);
    uint64_t elapsed = now - conn->frame_ms;
    if (opt_frame_pending(conn->reader) && elapsed > limits->frame_ms &&
        conn->frame_bytes < elapsed * limits->frame_rate / 1000) {
        send_refusal(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_TOO_SLOW, "frame too slow",
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
        conn_bid_farewell(conn, true, silent);
        send_refusal(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_SILENT, "lease expired",
                     "silent for %" PRIu64 " ms; the lease of worker %s is %" PRIu32
                     " ms, send heartbeats",
                     silent, conn->worker, conn->lease_ms);
    }
}

static void check_silence(struct conn *conn, uint64_t now)
{
    uint64_t silent = now - conn->heard_ms;
    if (!conn->said_hello) {
        uint32_t allowed = conn_limits(conn)->hello_ms;
        if (now - conn->since_ms > allowed) {
            send_refusal(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_SILENT, "no hello",
                         "no hello within %" PRIu32 " ms", allowed);
        }
    } else if (conn->is_worker) {
        check_lease(conn, now);
    } else if (conn->letters == 0 && silent > conn_limits(conn)->idle_ms) {
        send_refusal(conn, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_SILENT, "idle",
                     "nothing asked for %" PRIu64
                     " ms; an observer may be silent for %" PRIu32 " ms",
                     silent, conn_limits(conn)->idle_ms);
    }
}

/* Tell a peer that is held back that the daemon lives. */
static void beat(struct conn *conn, uint64_t now)
{
    static struct opt_log_site site;
    if (conn->beaten_ms < conn->paused_ms) {
        opt_log_limited(&site, OPT_LOG_INFO, "connection_held_back",
                        "peer=%s worker=%s bytes=%zu requests=%zu why=%s",
                        conn_address(conn), conn->worker, conn->bytes, conn->letters,
                        conn->pause == PAUSE_BUDGET   ? "inflight"
                        : conn->pause == PAUSE_OUTBOX ? "answers not read"
                                                      : "connection-inflight");
    }
    struct letter *letter = conn_letter(conn, OPT_ERROR_TEXT);
    if (letter != NULL) {
        conn->beaten_ms = now;
        conn->letters++;
        letter->reply.message = OPT_MESSAGE_HEARTBEAT;
        charge_update(conn, letter);
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
    const struct opt_transport *transport = &conn->watch.transport;
    if (!transport->kind->alive(transport)) {
        conn_close(conn, "closed by peer");
        return;
    }
    uint64_t silent = transport->kind->silence_ms(transport);
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
static void check_rate(struct conn *conn, uint64_t now)
{
    static struct opt_log_site site;
    const struct net_limits *limits = conn_limits(conn);
    size_t queue = conn->queue;
    uint64_t elapsed = now - conn->rate_ms;
    /* Whoever reads nothing any more is the business of check_writing. */
    if (queue > 0 && (elapsed <= limits->write_ms || queue == conn->written_queue)) {
        return;
    }
    uint64_t bytes = conn->taken - conn->rate_bytes;
    conn->rate_ms = now;
    conn->rate_bytes = conn->taken;
    if (queue > 0 && bytes < elapsed * limits->write_rate / 1000) {
        opt_log_limited(
            &site, OPT_LOG_WARN, "reader_too_slow",
            "peer=%s worker=%s bytes=%" PRIu64 " ms=%" PRIu64 " least_rate=%" PRIu32,
            conn_address(conn), conn->worker, bytes, elapsed, limits->write_rate);
        conn_close(conn, "reads too slowly");
    }
}

/* What is to be sent must move. */
static void check_writing(struct conn *conn, uint64_t now)
{
    size_t queue = conn->queue;
    check_rate(conn, now);
    if (conn->state == CONN_CLOSING) {
        return;
    }
    if (conn->files_ms != 0) { /* which are not in the queue */
        if (now - conn->files_ms > conn_limits(conn)->write_ms) {
            conn_close(conn, "reads nothing");
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
        conn->state == CONN_ENDING ? LINGER_MS : conn_limits(conn)->write_ms;
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
    if (conn->outgoing == 0 || !charge_is_guest(conn) || refused_ns == 0 ||
        now - conn->outgoing_ms <= conn_limits(conn)->write_ms ||
        uv_hrtime() - refused_ns > moment_ns) {
        return;
    }
    opt_log_limited(&site, OPT_LOG_WARN, "reader_gives_way",
                    "peer=%s ms=%" PRIu64 " why=\"%s\"", conn_address(conn),
                    now - conn->outgoing_ms, "a worker needs the memory that it holds");
    conn_close(conn, "reads what a worker needs the memory of");
}

/* A handshake is a part of the time to hello. */
static void check_opening(struct conn *conn, uint64_t now)
{
    static struct opt_log_site site;
    uint32_t allowed = conn_limits(conn)->hello_ms;
    if (now - conn->since_ms > allowed) {
        opt_log_limited(&site, OPT_LOG_WARN, "connection_not_opened",
                        "peer=%s why=\"no handshake of TLS within %" PRIu32 " ms\"",
                        conn_address(conn), allowed);
        conn_close(conn, "no handshake");
    }
}

void deadlines_check(struct conn *conn, uint64_t now_ms)
{
    if (!conn->watch.transport.is_open && conn->state == CONN_OPEN) {
        check_opening(conn, now_ms);
        return;
    }
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
