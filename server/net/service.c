/* service — see service.h. */
#include "server/net/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/tls.h"
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/net/charge.h"
#include "server/net/credentials.h"
#include "server/net/open_pushes.h"
#include "server/net/peer_memory.h"
#include "server/net/receive.h"
#include "server/net/refusal.h"
#include "server/net/send.h"
#include "server/turn/engine.h"

enum {
    /* At a time: what has been read is looked at while this core's cache has it. */
    READ_BYTES = 256 << 10,
    BYTES_READ = 2,   /* in a unit of cost (loop_done): into memory that may be new, */
    ANSWER_COST = 256 /* of an answer */
};

/* Workers' coming and going is news, and so is whom the daemon sends away; observers
 * ask something and go, health checks do not even ask, and both do so every few
 * seconds. */
static enum opt_log_level level_of(const struct conn *conn, bool news)
{
    return conn->is_worker || news ? OPT_LOG_INFO : OPT_LOG_DEBUG;
}

/* ---------------------------------------------------------------------- begin */

/* The parts of a connection that need memory. */
static bool equip(struct conn *conn)
{
    conn->reader = opt_frame_reader_new(conn_limits(conn)->frame);
    if (conn->reader == NULL || conn->refused) {
        return conn->reader != NULL;
    }
    struct letter *farewell = letter_new(&conn->loop->box, NULL, NULL, 0);
    if (farewell == NULL) {
        return false;
    }
    conn->peer = peer_new(conn_address(conn));
    if (conn->peer == NULL) {
        letter_free(farewell);
        return false;
    }
    farewell->kind = LETTER_CLOSED;
    farewell->peer = conn->peer;
    conn->farewell = farewell;
    return true;
}

/* The engine is told who the peer is, as far as that is known. */
static bool identify(struct conn *conn)
{
    const char *identity = opt_transport_identity(&conn->watch.transport);
    return conn->peer == NULL || identity[0] == '\0' ||
           peer_identify(conn->peer, identity);
}

static void count_gone(struct loop *loop, bool refused)
{
    atomic_fetch_sub(refused ? &loop->all->refusals : &loop->all->connections, 1);
}

void service_unopened(struct loop *loop, bool refuse)
{
    count_gone(loop, refuse);
}

static struct conn *conn_new(struct loop *loop, const struct opt_transport *transport,
                             const struct watcher *watcher)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL || watch_open(&conn->watch, &loop->uv, transport, watcher) != 0) {
        free(conn);
        return NULL;
    }
    conn->loop = loop;
    conn->since_ms = conn_now(conn);
    conn->heard_ms = conn->since_ms;
    conn->written_ms = conn->since_ms;
    conn->rate_ms = conn->since_ms;
    conn->next = loop->conns;
    if (conn->next != NULL) {
        conn->next->previous = conn;
    }
    loop->conns = conn;
    return conn;
}

void service_open(struct loop *loop, struct opt_transport *transport, bool refuse,
                  const struct watcher *watcher)
{
    struct conn *conn = conn_new(loop, transport, watcher);
    if (conn == NULL) {
        transport->kind->close(transport);
        count_gone(loop, refuse);
        return;
    }
    conn->refused = refuse;
    conn->blocked = !transport->is_open;
    conn->shakes = !transport->is_open && conn_limits(conn)->credentials != NULL;
    if (transport->hands_over && conn_limits(conn)->shares_memory) {
        conn->peer_memory = peer_memory_new();
    }
    if (!refuse) {
        counter_add(COUNTER_CONNECTIONS, 1);
        counter_add(COUNTER_CONNECTIONS_OPENED, 1);
        opt_log(OPT_LOG_DEBUG, "connection_opened", "peer=%s identity=%s loop=%d",
                conn_address(conn), transport->identity, loop->number);
    }
    if (!equip(conn) || (transport->is_open && !identify(conn))) {
        conn_close(conn, "no memory");
    } else if (refuse) {
        char text[OPT_ERROR_TEXT];
        refusal_sentence(conn_limits(conn)->connections, text, sizeof(text));
        send_refusal(conn, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                     "too many connections", "%s", text);
    }
    conn_ready(conn);
}

/* The handshake is over, well or not. */
static void end_handshake(struct conn *conn, bool well)
{
    if (conn->shakes) {
        conn->shakes = false;
        credentials_shaken(conn_limits(conn)->credentials);
        counter_add(well ? COUNTER_HANDSHAKES : COUNTER_HANDSHAKES_FAILED, 1);
    }
}

/* Whoever does not speak TLS can still read a sentence. */
static void tell_plain(const struct conn *conn)
{
    const struct opt_transport *transport = &conn->watch.transport;
    struct refusal refusal;
    refusal_make(&refusal, OPT_UNAUTHENTICATED, OPT_DETAIL_NONE, 0,
                 "this address is for TLS alone; connect to it as optimds://HOST:PORT, "
                 "with the file of its CA");
    refusal_send(&refusal, transport->fd);
}

void service_opened(struct conn *conn, const struct opt_error *error)
{
    const struct opt_transport *transport = &conn->watch.transport;
    const char *refusal = error == NULL ? opt_tls_refusal(transport) : NULL;
    end_handshake(conn, error == NULL && refusal == NULL);
    if (error == NULL) {
        service_unblock(conn);
        if (refusal != NULL && conn->state == CONN_OPEN) {
            send_refusal(conn, OPT_UNAUTHENTICATED, OPT_DETAIL_NONE, "not believed",
                         "%s", refusal);
        } else if (!identify(conn)) {
            conn_close(conn, "no memory");
        }
        return;
    }
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_WARN, "connection_not_opened", "peer=%s why=%s",
                    conn_address(conn), error->text);
    if (opt_tls_is_plain(transport)) {
        tell_plain(conn);
    }
    conn_close(conn, "not opened");
}

/* -------------------------------------------------------------------- answers */

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
                    "peer=%s worker=%s client=%s incarnation=%" PRIu64,
                    conn_address(conn), hello->worker, hello->client,
                    letter->reply.body.hello.incarnation);
}

void service_returned(struct conn *conn, struct letter *letter)
{
    loop_done(conn->loop, ANSWER_COST);
    if (letter->kind == LETTER_PART) {
        conn->letters++; /* from now on it is one of the connection's */
        charge_update(conn, letter);
        if (conn->state > CONN_ENDING) {
            conn_release(conn, letter);
        } else {
            send_answer(conn, letter);
        }
        return;
    }
    open_pushes_return(conn, letter);
    if (letter->allowance > 0) {
        charge_grant(conn, letter->allowance, letter->granted);
    }
    if (conn->state > CONN_ENDING || letter->silent) {
        conn_release(conn, letter);
        return;
    }
    /* The data has served; what the answer still waits for does not need it. */
    letter_drop_data(letter);
    letter->ahead = 0;
    charge_update(conn, letter); /* before others can take what was paid for it */
    letter_refund(letter, letter->paid);
    if (letter->request.message == OPT_MESSAGE_HELLO) {
        on_hello_answered(conn, letter);
    }
    peer_memory_note(conn, letter);
    bool hang_up = letter->hang_up;
    bool turned_away = letter->reply.message == OPT_MESSAGE_ERROR;
    conn->left = conn->left || (hang_up && !turned_away);
    send_answer(conn, letter);
    if (hang_up) {
        conn_end(conn, turned_away ? "no login" : "goodbye");
    }
}

/* -------------------------------------------------------------------- reading */

static bool wants_to_read(const struct conn *conn)
{
    return conn->state == CONN_LINGERING ||
           (conn->state == CONN_OPEN && conn->watch.transport.is_open &&
            conn->pause == PAUSE_NONE && conn->loop->stops == 0);
}

static void find_space(struct conn *conn, uint8_t **base, size_t *size)
{
    if (conn->state != CONN_OPEN) {
        *base = conn->loop->discard;
        *size = LOOP_DISCARD;
        return;
    }
    opt_frame_lend(conn->reader, conn->loop->ahead);
    opt_frame_space(conn->reader, base, size);
    *size = *size < READ_BYTES ? *size : READ_BYTES;
}

static void receive(struct conn *conn, size_t size)
{
    counter_add(COUNTER_BYTES_RECEIVED, size);
    loop_done(conn->loop, size / BYTES_READ);
    uint64_t frames = conn->frames;
    bool was_pending = opt_frame_pending(conn->reader);
    conn->heard_ms = conn_now(conn);
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
}

/* Whether a connection begins like TLS: a frame of ours would have to be of a length
 * that none has before hello. */
static bool speaks_tls(const uint8_t *bytes, size_t size)
{
    return size >= 6 && bytes[0] == 0x16 && bytes[1] == 3 && bytes[2] <= 4 &&
           bytes[5] == 1;
}

/* Of TLS there is more to say than an errno. */
static void log_broken(const struct conn *conn, int code)
{
    static struct opt_log_site site;
    struct opt_error error;
    opt_transport_trouble(&conn->watch.transport, code, &error);
    opt_log_limited(&site, OPT_LOG_INFO, "connection_broken",
                    "peer=%s worker=%s why=%s", conn_address(conn), conn->worker,
                    error.text);
}

bool service_read(struct conn *conn)
{
    struct opt_transport *transport = &conn->watch.transport;
    uint8_t *base = NULL;
    size_t size = 0;
    if (!wants_to_read(conn)) {
        return false;
    }
    find_space(conn, &base, &size);
    ssize_t got = transport->kind->read(transport, base, size);
    int code = got < 0 ? errno : 0;
    if (got > 0 && conn->state == CONN_OPEN && conn->frames == 0 && !conn->said_hello &&
        !opt_frame_pending(conn->reader) && speaks_tls(base, (size_t)got)) {
        send_refusal(conn, OPT_FAILED_PRECONDITION, OPT_DETAIL_NONE, "speaks TLS",
                     "the peer speaks TLS, and this address does not: connect to it as "
                     "optimd://HOST:PORT, or give the daemon a certificate");
        return false;
    }
    bool broken = got < 0 && code != EAGAIN && code != EWOULDBLOCK;
    if (broken && conn_limits(conn)->credentials != NULL) {
        log_broken(conn, code);
    }
    if (got == 0 || broken) {
        conn->left = true;
        conn_close(conn, got == 0 ? "closed by peer" : uv_err_name(-code));
    } else if (got > 0 && conn->state == CONN_OPEN) {
        receive(conn, (size_t)got);
    }
    if (!opt_frame_take_back(conn->reader)) {
        conn_close(conn, "no memory");
    }
    conn_ready(conn);
    return got > 0 && ((size_t)got == size || transport->kind->holds(transport));
}

/* -------------------------------------------------------------------- serving */

void service_unblock(struct conn *conn)
{
    conn->blocked = false;
    conn_ready(conn);
}

/* All is sent. Closing now would turn bytes that the peer has sent in the meantime into
 * a reset, which may overtake the last answer: so say that nothing more comes, and wait
 * for the peer to close. */
static void linger(struct conn *conn)
{
    struct opt_transport *transport = &conn->watch.transport;
    conn_linger(conn);
    conn_bid_farewell(conn, false, 0);
    if (!transport->kind->finish(transport)) {
        conn_close(conn, uv_err_name(-errno));
    }
}

/* It closes: give up what is under way. */
static void abandon(struct conn *conn)
{
    conn->abandoned = true;
    end_handshake(conn, false);
    conn_bid_farewell(conn, false, 0);
    receive_abandon(conn);
    send_abandon(conn);
    watch_close(&conn->watch);
}

/* Wait for what can go on. */
static void wait_for_events(struct conn *conn)
{
    struct opt_transport *transport = &conn->watch.transport;
    bool reads = wants_to_read(conn);
    watch_for(&conn->watch,
              (reads ? WATCH_READ : 0) | (conn->blocked ? WATCH_WRITE : 0));
    if (reads && !conn->is_held && transport->kind->holds(transport)) {
        /* Nothing else tells of these bytes; but others have their turn. */
        struct loop *loop = conn->loop;
        conn->is_held = true;
        conn->held_next = loop->held;
        loop->held = conn;
        uv_async_send(&loop->wake);
    }
}

static void conn_free(struct conn *conn)
{
    charge_give(conn, conn->header_bytes);
    charge_grant(conn, 0, 0);
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
    free(conn->peer_memory);
    free(conn);
}

void service_run(struct conn *conn)
{
    if (conn->state == CONN_OPEN && conn->pause != PAUSE_NONE) {
        receive_advance(conn);
    }
    send_pump(conn);
    if (conn->state != CONN_OPEN) {
        receive_abandon(conn);
    }
    if (conn->state == CONN_ENDING && send_is_idle(conn)) {
        linger(conn);
    }
    if (conn->state != CONN_CLOSING) {
        wait_for_events(conn);
    } else if (!conn->abandoned) {
        abandon(conn);
    }
    if (conn->closed && conn->letters == 0 && !conn->is_ready && !conn->is_held) {
        conn_free(conn);
    }
}

/* -------------------------------------------------------------------- the end */

void service_closed(struct conn *conn)
{
    conn->closed = true;
    peer_memory_close(conn); /* not before: see peer_memory.h */
    count_gone(conn->loop, conn->refused);
    if (!conn->refused) {
        counter_subtract(COUNTER_CONNECTIONS, 1);
        static struct opt_log_site site;
        opt_log_limited(&site, level_of(conn, !conn->left), "connection_closed",
                        "peer=%s worker=%s why=%s frames=%" PRIu64, conn_address(conn),
                        conn->worker, conn->reason, conn->frames);
    }
    conn_ready(conn);
}

void service_finish(struct conn *conn)
{
    /* One that is closing already has said all it can say. */
    if (!conn->watch.transport.is_open) {
        conn_close(conn, "daemon stopping");
    } else if (conn->state == CONN_OPEN) {
        send_refusal(conn, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING, "daemon stopping",
                     "the daemon is stopping");
    }
}
