/* loop — see loop.h. */
#include "server/net/loop.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "server/base/buffer.h"
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/net/batch.h"
#include "server/net/conn.h"
#include "server/net/credentials.h"
#include "server/net/deadlines.h"
#include "server/net/service.h"
#include "server/net/socket.h"
#include "server/turn/engine.h"

enum {
    TRIM_TICKS = 10,      /* unused buffers are looked at every 2.5 s */
    STOP_LIMIT_MS = 5000, /* for flushing and for peers to hang up */
    READS_AT_ONCE = 32,   /* of one connection, then others have their turn */
    NS_PER_US = 1000
};

/* After the last connection has gone, the loop has nothing to run for. */
static void close_if_done(struct loop *loop)
{
    if (loop->stops == 2 && loop->conns == NULL && loop->farewells == 0 &&
        !uv_is_closing((uv_handle_t *)&loop->tick)) {
        uv_close((uv_handle_t *)&loop->turned, NULL);
        uv_close((uv_handle_t *)&loop->tick, NULL);
        uv_close((uv_handle_t *)&loop->wake, NULL);
    }
}

static bool waits_for_room(const struct conn *conn)
{
    return conn->state < CONN_LINGERING &&
           (conn->starved || (conn->loop->stops == 0 && conn->state == CONN_OPEN &&
                              conn->pause == PAUSE_BUDGET));
}

static uint64_t waiting_since(const struct conn *conn)
{
    bool sends_first = conn->starved && (conn->pause != PAUSE_BUDGET ||
                                         conn->starved_ms < conn->paused_ms);
    return sends_first ? conn->starved_ms : conn->paused_ms;
}

static struct conn *longest_without_room(const struct loop *loop)
{
    struct conn *longest = NULL;
    for (struct conn *conn = loop->conns; conn != NULL; conn = conn->next) {
        if (waits_for_room(conn) &&
            (longest == NULL || waiting_since(conn) < waiting_since(longest))) {
            longest = conn;
        }
    }
    return longest;
}

/* There may be room in the common budget again: first come, first served. A loop that
 * stops reads nothing more, so nobody takes room: who waits for it is answered with all
 * the others. */
static void share_out_room(struct loop *loop)
{
    loop->short_of_room = false;
    while (!loop->short_of_room) {
        struct conn *conn = longest_without_room(loop);
        if (conn == NULL) {
            return;
        }
        service_run(conn);
        if (waits_for_room(conn)) {
            return; /* for something else as well */
        }
    }
}

static void on_stop(struct loop *loop)
{
    loop->stops++;
    loop->stopped_ms = uv_now(&loop->uv);
    for (struct conn *conn = loop->conns; conn != NULL; conn = conn->next) {
        if (loop->stops == 1) {
            conn_ready(conn);
        } else {
            service_finish(conn);
        }
    }
    if (loop->stops == 1) {
        uv_sem_post(&loop->all->quiet);
    }
}

/* As on_event, of those whose transport holds bytes already. */
static void read_held(struct loop *loop)
{
    struct conn *conn = loop->held;
    loop->held = NULL;
    while (conn != NULL) {
        struct conn *next = conn->held_next;
        conn->is_held = false;
        uint64_t before = loop->turn_cost;
        bool reads = true;
        for (int i = 0; reads && i < READS_AT_ONCE && loop_may_go_on(loop, before);
             i++) {
            reads = service_read(conn);
        }
        conn_ready(conn);
        conn = next;
    }
}

/* What every callback begins with. libuv calls them while it waits, and nothing before
 * the first of those that an event has. */
static void begin_turn(struct loop *loop)
{
    if (loop->turn_began_ns == 0) {
        loop->turn_began_ns = uv_hrtime();
        loop->turn_cost = 0;
    }
}

static void on_event(struct watch *watch, unsigned events)
{
    struct conn *conn = conn_of(watch);
    struct loop *loop = conn->loop;
    begin_turn(loop);
    if ((events & WATCH_WRITE) != 0) {
        service_unblock(conn);
    }
    bool reads = (events & WATCH_READ) != 0;
    uint64_t before = loop->turn_cost;
    for (int i = 0; reads && i < READS_AT_ONCE && loop_may_go_on(loop, before); i++) {
        reads = service_read(conn);
        loop_settle(loop);
    }
    loop_settle(loop);
}

static void on_opened(struct watch *watch, const struct opt_error *error)
{
    struct conn *conn = conn_of(watch);
    struct loop *loop = conn->loop;
    begin_turn(loop);
    service_opened(conn, error);
    loop_settle(loop);
}

static void on_closed(struct watch *watch)
{
    struct conn *conn = conn_of(watch);
    struct loop *loop = conn->loop;
    begin_turn(loop);
    service_closed(conn);
    loop_settle(loop);
}

void loop_serve(struct loop *loop, struct opt_transport *transport, bool refuse)
{
    static const struct watcher watcher = { .on_event = on_event,
                                            .on_opened = on_opened,
                                            .on_closed = on_closed };
    service_open(loop, transport, refuse, &watcher);
}

static void on_accepted(struct loop *loop, const struct letter *letter)
{
    const struct net_limits *limits = &loop->all->limits;
    struct opt_socket_tuning tuning =
        socket_tuning(limits->user_timeout_ms, limits->congestion);
    struct opt_transport transport;
    opt_transport_adopt(&transport, letter->socket, &tuning);
    struct opt_error error;
    /* Unix sockets are of this machine, and have no need of TLS. */
    if (limits->credentials != NULL && !transport.hands_over &&
        credentials_accept(limits->credentials, &transport, &error) != OPT_OK) {
        static struct opt_log_site site;
        opt_log_limited(&site, OPT_LOG_WARN, "handshake_refused", "peer=%s why=%s",
                        transport.address, error.text);
        counter_add(COUNTER_HANDSHAKES_FAILED, 1);
        transport.kind->close(&transport);
        service_unopened(loop, letter->refuse);
        return;
    }
    loop_serve(loop, &transport, letter->refuse);
}

static void take_letter(struct loop *loop, struct letter *letter)
{
    switch (letter->kind) {
    case LETTER_REQUEST:
    case LETTER_PART:
        service_returned(letter->conn, letter);
        break;
    case LETTER_CLOSED:
        loop->farewells--;
        letter_free(letter);
        break;
    case LETTER_ACCEPTED:
        on_accepted(loop, letter);
        letter_free(letter);
        break;
    case LETTER_ANSWERED: /* the engine's alone */
        break;
    case LETTER_STOP:
        on_stop(loop);
        break;
    }
}

static void take_letters(struct loop *loop)
{
    struct letter *letter = mailbox_take(&loop->box);
    while (letter != NULL) {
        struct letter *next = letter->next;
        take_letter(loop, letter);
        letter = next;
    }
    if (loop->short_of_room) {
        share_out_room(loop);
    }
}

static void serve_ready(struct loop *loop)
{
    while (loop->ready != NULL) {
        struct conn *conn = loop->ready;
        loop->ready = conn->ready_next;
        conn->is_ready = false;
        service_run(conn);
    }
}

void loop_settle(struct loop *loop)
{
    serve_ready(loop);
    while (loop->has_left) {
        loop->has_left = false;
        mailbox_attend(&loop->box);
        engine_visit(loop->all->engine);
        take_letters(loop);
        serve_ready(loop);
    }
    close_if_done(loop);
}

static void on_wake(uv_async_t *wake)
{
    struct loop *loop = wake->data;
    begin_turn(loop);
    take_letters(loop);
    conn_empty_some(loop);
    read_held(loop);
    loop_settle(loop);
}

static void on_tick(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    begin_turn(loop);
    uint64_t now = uv_now(&loop->uv);
    uint64_t late = now - loop->ticked_ms;
    loop->ticked_ms = now;
    bool cut = loop->stops == 2 && now - loop->stopped_ms > STOP_LIMIT_MS;
    for (struct conn *conn = loop->conns; conn != NULL; conn = conn->next) {
        if (late > 2 * TICK_MS) {
            /* The process was stopped, or starved: bytes may have come meanwhile. */
            conn_forgive(conn, late - TICK_MS);
        }
        if (cut) {
            conn_close(conn, "daemon stopping");
        } else {
            deadlines_check(conn, now);
        }
    }
    if (loop->short_of_room) {
        share_out_room(loop);
    }
    if (loop->number == 0 && ++loop->ticks % TRIM_TICKS == 0) {
        buffer_trim();
    }
    loop_settle(loop);
}

/* It is about to wait for events: what it was at is over. */
static void on_turned(uv_prepare_t *turned)
{
    struct loop *loop = turned->data;
    if (loop->turn_began_ns != 0) {
        counter_most(COUNTER_LOOP_NS_MOST, uv_hrtime() - loop->turn_began_ns);
        counter_most(COUNTER_LOOP_COST_MOST, loop->turn_cost);
        loop->turn_began_ns = 0;
    }
}

static void run(void *argument)
{
    struct loop *loop = argument;
    bool alive = true;
    while (alive && loop->spin_ns > 0) {
        bool spins = uv_hrtime() - loop->heard_ns < loop->spin_ns;
        alive = uv_run(&loop->uv, spins ? UV_RUN_NOWAIT : UV_RUN_ONCE) != 0;
    }
    if (alive) {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
}

/* -------------------------------------------------------------- main's thread */

static void loop_fini(struct loop *loop)
{
    batch_free_spare(loop);
    while (loop->spare_letters != NULL) {
        struct letter *letter = loop->spare_letters;
        loop->spare_letters = letter->next;
        letter_free(letter);
    }
    XXH3_freeState(loop->hash);
    mailbox_fini(&loop->box);
    uv_loop_close(&loop->uv);
}

static int loop_init(struct loops *all, int number)
{
    struct loop *loop = &all->loop[number];
    loop->all = all;
    loop->number = number;
    /* On a machine's only core, who looks keeps others from sending what it looks for.
     * A loop that is held to one of several is meant to have it. */
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
        loop->spin_ns = (uint64_t)all->limits.spin_us * NS_PER_US;
    }
    loop->stop[0].kind = LETTER_STOP;
    loop->stop[1].kind = LETTER_STOP;
    int code = uv_loop_init(&loop->uv);
    if (code != 0) {
        return code;
    }
    code = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (code != 0) {
        uv_loop_close(&loop->uv);
        return code;
    }
    loop->wake.data = loop;
    all->quota.wake[number] = &loop->wake;
    uv_prepare_init(&loop->uv, &loop->turned);
    loop->turned.data = loop;
    uv_prepare_start(&loop->turned, on_turned);
    uv_timer_init(&loop->uv, &loop->tick);
    loop->tick.data = loop;
    uv_timer_start(&loop->tick, on_tick, TICK_MS, TICK_MS);
    loop->ticked_ms = uv_now(&loop->uv);
    code = mailbox_init_async(&loop->box, &loop->wake);
    if (code == 0) {
        return 0;
    }
    uv_close((uv_handle_t *)&loop->turned, NULL);
    uv_close((uv_handle_t *)&loop->tick, NULL);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    return code;
}

static void loops_free(struct loops *loops)
{
    uv_sem_destroy(&loops->quiet);
    free(loops->loop);
    free(loops);
}

enum opt_status loops_new(const struct net_limits *limits, int count,
                          struct engine *engine, struct loops **out,
                          struct opt_error *error)
{
    struct loops *loops = calloc(1, sizeof(*loops));
    if (loops == NULL || uv_sem_init(&loops->quiet, 0) != 0) {
        free(loops);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for the loops");
    }
    loops->limits = *limits;
    loops->engine = engine;
    quota_init(&loops->quota, limits->inflight_bytes, limits->frame.frame_bytes, count);
    buffer_keep(limits->inflight_bytes);
    loops->loop = calloc((size_t)count, sizeof(*loops->loop));
    if (loops->loop == NULL) {
        loops_free(loops);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for %d loops", count);
    }
    for (int i = 0; i < count; i++) {
        int code = loop_init(loops, i);
        if (code != 0) {
            loops_quiet(loops);
            loops_stop(loops);
            return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                            "cannot make loop %d of %d: %s", i + 1, count,
                            uv_strerror(code));
        }
        loops->count++;
    }
    *out = loops;
    return OPT_OK;
}

enum opt_status loops_start(const struct net_limits *limits, int count,
                            struct engine *engine, struct loops **out,
                            struct opt_error *error)
{
    struct loops *loops;
    enum opt_status status = loops_new(limits, count, engine, &loops, error);
    for (int i = 0; status == OPT_OK && i < count; i++) {
        struct loop *loop = &loops->loop[i];
        int code = uv_thread_create(&loop->thread, run, loop);
        loop->has_thread = code == 0;
        if (code != 0) {
            loops_quiet(loops);
            loops_stop(loops);
            status = opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                              "cannot start loop %d of %d: %s", i + 1, count,
                              uv_strerror(code));
        }
    }
    if (status == OPT_OK) {
        *out = loops;
    }
    return status;
}

void loops_deal(struct loops *loops, int socket, bool refuse)
{
    struct loop *loop = &loops->loop[loops->next];
    loops->next = (loops->next + 1) % loops->count;
    struct letter *letter = letter_new(&loop->box, NULL, NULL, 0);
    if (letter == NULL) {
        close(socket);
        return;
    }
    letter->kind = LETTER_ACCEPTED;
    letter->socket = socket;
    letter->refuse = refuse;
    atomic_fetch_add(refuse ? &loops->refusals : &loops->connections, 1);
    mailbox_post(&loop->box, letter);
}

void loops_quiet(struct loops *loops)
{
    for (int i = 0; i < loops->count; i++) {
        struct loop *loop = &loops->loop[i];
        mailbox_post(&loop->box, &loop->stop[0]);
        if (!loop->has_thread) {
            uv_run(&loop->uv, UV_RUN_NOWAIT);
        }
    }
    for (int i = 0; i < loops->count; i++) {
        uv_sem_wait(&loops->quiet);
    }
}

void loops_stop(struct loops *loops)
{
    for (int i = 0; i < loops->count; i++) {
        mailbox_post(&loops->loop[i].box, &loops->loop[i].stop[1]);
    }
    for (int i = 0; i < loops->count; i++) {
        struct loop *loop = &loops->loop[i];
        if (loop->has_thread) {
            uv_thread_join(&loop->thread);
        } else {
            uv_run(&loop->uv, UV_RUN_DEFAULT);
        }
        loop_fini(loop);
    }
    buffer_keep(0);
    loops_free(loops);
}
