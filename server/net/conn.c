/* conn — see conn.h. */
#include "server/net/conn.h"

#include "server/base/letter.h"
#include "server/net/charge.h"
#include "server/turn/engine.h"

enum {
    PIECES = 8192,                /* of an answer, given back at a time, */
    PIECE_COST = 32,              /* each of which takes so long */
    SPARE_LETTERS = 128,          /* kept for the next requests, about 8 KiB each, */
    SPARE_LETTER_BYTES = 16 << 10 /* and no more than that */
};

const struct net_limits *conn_limits(const struct conn *conn)
{
    return &conn->loop->all->limits;
}

uint64_t conn_now(const struct conn *conn)
{
    return uv_now(&conn->loop->uv);
}

struct conn *conn_of(struct watch *watch)
{
    return (struct conn *)((char *)watch - offsetof(struct conn, watch));
}

const char *conn_address(const struct conn *conn)
{
    return conn->watch.transport.address;
}

void conn_ready(struct conn *conn)
{
    struct loop *loop = conn->loop;
    if (conn->is_ready) {
        return;
    }
    conn->is_ready = true;
    conn->ready_next = NULL;
    if (loop->ready == NULL) {
        loop->ready = conn;
    } else {
        loop->ready_last->ready_next = conn;
    }
    loop->ready_last = conn;
}

/* ------------------------------------------------------------------- letters */

struct letter *conn_letter(struct conn *conn, size_t arena_limit)
{
    struct loop *loop = conn->loop;
    struct letter *letter = loop->spare_letters;
    if (letter == NULL) {
        return letter_new(&loop->box, conn, conn->peer, arena_limit);
    }
    loop->spare_letters = letter->next;
    loop->spare_letter_count--;
    letter_renew(letter, &loop->box, conn, conn->peer, arena_limit);
    return letter;
}

static void spare(struct loop *loop, struct letter *letter)
{
    /* What it holds of others must not wait for the next request. */
    letter_renew(letter, NULL, NULL, NULL, 0);
    if (loop->spare_letter_count == SPARE_LETTERS ||
        letter_memory(letter) > SPARE_LETTER_BYTES) {
        letter_free(letter);
        return;
    }
    letter->next = loop->spare_letters;
    loop->spare_letters = letter;
    loop->spare_letter_count++;
}

void conn_release(struct conn *conn, struct letter *letter)
{
    if (letter->piece_count > PIECES) {
        letters_append(&conn->loop->emptied, letter);
        uv_async_send(&conn->loop->wake);
        return;
    }
    loop_done(conn->loop, PIECE_COST * (uint64_t)letter->piece_count);
    conn->tables -= letter->is_table;
    charge_release(conn, letter);
    conn->letters--;
    spare(conn->loop, letter);
    conn_ready(conn);
}

void conn_empty_some(struct loop *loop)
{
    struct letter *letter = loop->emptied.first;
    if (letter == NULL) {
        return;
    }
    letter_drop_last(letter, PIECES);
    loop_done(loop, PIECE_COST * (uint64_t)PIECES);
    if (letter->piece_count <= PIECES) {
        letters_take(&loop->emptied);
        conn_release(letter->conn, letter);
    }
    if (loop->emptied.first != NULL) {
        uv_async_send(&loop->wake);
    }
}

/* ------------------------------------------------------------------- the end */

static void enter(struct conn *conn, enum conn_state state, const char *reason)
{
    if (conn->reason == NULL) {
        conn->reason = reason;
    }
    conn->state = state;
    conn->since_ms = conn_now(conn);
    conn_ready(conn);
}

void conn_end(struct conn *conn, const char *reason)
{
    if (conn->state == CONN_OPEN) {
        enter(conn, CONN_ENDING, reason);
        conn->written_ms = conn->since_ms;
    }
}

void conn_close(struct conn *conn, const char *reason)
{
    if (conn->state != CONN_CLOSING) {
        enter(conn, CONN_CLOSING, reason);
    }
}

void conn_linger(struct conn *conn)
{
    enter(conn, CONN_LINGERING, "ended");
}

void conn_bid_farewell(struct conn *conn, bool lease_expired, uint64_t silent_ms)
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

/* Some may have been set since the time that is forgiven began, and none may come to
 * lie in the future: what is counted from then would be an age. */
static uint64_t moved_up(const struct conn *conn, uint64_t then, uint64_t ms)
{
    uint64_t now = conn_now(conn);
    return now - then < ms ? now : then + ms;
}

void conn_forgive(struct conn *conn, uint64_t ms)
{
    conn->since_ms = moved_up(conn, conn->since_ms, ms);
    conn->heard_ms = moved_up(conn, conn->heard_ms, ms);
    conn->frame_ms = moved_up(conn, conn->frame_ms, ms);
    conn->rate_ms = moved_up(conn, conn->rate_ms, ms);
}
