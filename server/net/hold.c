/* hold — see hold.h. */
#include "server/net/hold.h"

#include "server/base/buffer.h"
#include "server/base/quota.h"

enum {
    SMALL_CHANGE = 32 << 10, /* of each connection; saves small requests the budget */
    GRANT_PER_LETTER = 4 << 10
};

bool hold_is_guest(const struct conn *conn)
{
    return conn->granted == 0;
}

size_t hold_allowance(const struct conn *conn)
{
    size_t ordinary = conn->loop->all->limits.connection_bytes;
    return conn->allowance > ordinary ? conn->allowance : ordinary;
}

/* What the common budget must cover if the connection holds that much. */
static size_t share(const struct conn *conn, size_t bytes)
{
    size_t covered = conn->granted + SMALL_CHANGE;
    return bytes > covered ? bytes - covered : 0;
}

/* After bytes has fallen or the grant has changed. */
static void settle(struct conn *conn)
{
    struct quota *quota = &conn->loop->all->quota;
    size_t wanted = share(conn, conn->bytes);
    bool guest = hold_is_guest(conn);
    if (guest != conn->reserved_as_guest) {
        quota_force(quota, wanted, guest);
        quota_give(quota, conn->reserved, !guest);
    } else if (wanted < conn->reserved) {
        quota_give(quota, conn->reserved - wanted, guest);
    } else if (wanted > conn->reserved) {
        quota_force(quota, wanted - conn->reserved, guest);
    }
    conn->reserved = wanted;
    conn->reserved_as_guest = guest;
}

static bool take(struct conn *conn, size_t more)
{
    struct quota *quota = &conn->loop->all->quota;
    bool guest = hold_is_guest(conn);
    if (quota_take(quota, more, guest)) {
        return true;
    }
    conn->loop->short_of_room = true;
    quota_wait(quota, conn->loop->number);
    return quota_take(quota, more, guest);
}

bool hold_take(struct conn *conn, size_t bytes)
{
    size_t wanted = share(conn, conn->bytes + bytes);
    if (wanted > conn->reserved) {
        if (!take(conn, wanted - conn->reserved)) {
            return false;
        }
        conn->reserved = wanted;
        conn->reserved_as_guest = hold_is_guest(conn);
    }
    conn->bytes += bytes;
    return true;
}

void hold_force(struct conn *conn, size_t bytes)
{
    conn->bytes += bytes;
    settle(conn);
}

void hold_give(struct conn *conn, size_t bytes)
{
    conn->bytes -= bytes;
    settle(conn);
}

enum conn_pause hold_admit(struct conn *conn, struct letter *letter, size_t data_size)
{
    size_t charge = letter_memory(letter) + data_size - letter->charge;
    /* A single request is let in whatever its size, which the limit of a frame bounds:
     * nothing would ever make more room for it. */
    if (conn->bytes + charge > hold_allowance(conn) && conn->letters > 1) {
        return PAUSE_CONNECTION;
    }
    if (!hold_take(conn, charge)) {
        return PAUSE_BUDGET;
    }
    letter->charge += charge;
    return PAUSE_NONE;
}

void hold_sync(struct conn *conn, struct letter *letter)
{
    size_t now = letter_memory(letter);
    conn->bytes = conn->bytes - letter->charge + now;
    letter->charge = now;
    settle(conn);
}

void hold_release(struct conn *conn, struct letter *letter)
{
    conn->bytes -= letter->charge;
    letter->charge = 0;
    settle(conn);
}

void hold_header(struct conn *conn)
{
    size_t now = opt_frame_taken(conn->reader);
    if (now != conn->header_bytes) {
        conn->bytes = conn->bytes - conn->header_bytes + now;
        conn->header_bytes = now;
        settle(conn);
    }
}

void hold_grant(struct conn *conn, size_t allowance, size_t granted)
{
    buffer_promise(conn->granted, granted);
    conn->allowance = allowance;
    conn->granted = granted;
    settle(conn);
}

bool hold_letters_full(const struct conn *conn)
{
    return conn->letters >= LETTERS_MAX + conn->granted / GRANT_PER_LETTER;
}

static struct open_push *find_push(struct conn *conn, uint64_t id)
{
    for (size_t i = 0; i < conn->push_count; i++) {
        if (conn->pushes[i].id == id) {
            return &conn->pushes[i];
        }
    }
    return NULL;
}

bool hold_push_posted(struct conn *conn, const struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    if (push == NULL || (push->last && conn->push_count == 0)) {
        return true;
    }
    struct open_push *open = find_push(conn, letter->request.id);
    if (push->last) {
        if (open != NULL) {
            *open = conn->pushes[--conn->push_count];
        }
        return true;
    }
    if (open == NULL) {
        if (conn->push_count == PUSHES_MAX) {
            return false;
        }
        open = &conn->pushes[conn->push_count++];
        *open = (struct open_push){ .id = letter->request.id };
    }
    open->letters++;
    return true;
}

bool hold_push_begun(struct conn *conn, uint64_t id)
{
    return find_push(conn, id) != NULL;
}

void hold_push_returned(struct conn *conn, const struct letter *letter)
{
    if (conn->push_count == 0) {
        return;
    }
    const struct opt_push *push = letter_push(letter);
    if (push == NULL || push->last) {
        return;
    }
    struct open_push *open = find_push(conn, letter->request.id);
    if (open != NULL && --open->letters == 0) {
        *open = conn->pushes[--conn->push_count];
    }
}

bool hold_is_hopeless(const struct conn *conn)
{
    size_t waiting = conn->arriving != NULL ? 1 : 0;
    for (size_t i = 0; i < conn->push_count; i++) {
        waiting += conn->pushes[i].letters;
    }
    return waiting >= conn->letters;
}
