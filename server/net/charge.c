#include "server/net/charge.h"

#include "server/base/buffer.h"
#include "server/base/quota.h"

enum {
    SMALL_CHANGE = 32 << 10, /* of each connection; saves small requests the budget */
    GRANT_PER_LETTER = 4 << 10
};

bool charge_is_guest(const struct conn *conn)
{
    return conn->granted == 0;
}

size_t charge_allowance(const struct conn *conn)
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
    bool guest = charge_is_guest(conn);
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
    bool guest = charge_is_guest(conn);
    if (quota_take(quota, more, guest)) {
        return true;
    }
    conn->loop->short_of_room = true;
    quota_wait(quota, conn->loop->number);
    return quota_take(quota, more, guest);
}

bool charge_take(struct conn *conn, size_t bytes)
{
    size_t wanted = share(conn, conn->bytes + bytes);
    if (wanted > conn->reserved) {
        if (!take(conn, wanted - conn->reserved)) {
            return false;
        }
        conn->reserved = wanted;
        conn->reserved_as_guest = charge_is_guest(conn);
    }
    conn->bytes += bytes;
    return true;
}

void charge_force(struct conn *conn, size_t bytes)
{
    conn->bytes += bytes;
    settle(conn);
}

void charge_give(struct conn *conn, size_t bytes)
{
    conn->bytes -= bytes;
    settle(conn);
}

enum conn_pause charge_letter(struct conn *conn, struct letter *letter,
                              size_t data_size)
{
    size_t charge = letter_memory(letter) + data_size - letter->charge;
    /* A single request is let in whatever its size, which the limit of a frame bounds:
     * nothing would ever make more room for it. */
    if (conn->bytes + charge > charge_allowance(conn) && conn->letters > 1) {
        return PAUSE_CONNECTION;
    }
    if (!charge_take(conn, charge)) {
        return PAUSE_BUDGET;
    }
    letter->charge += charge;
    return PAUSE_NONE;
}

void charge_update(struct conn *conn, struct letter *letter)
{
    size_t now = letter_memory(letter);
    conn->bytes = conn->bytes - letter->charge + now;
    letter->charge = now;
    settle(conn);
}

void charge_release(struct conn *conn, struct letter *letter)
{
    conn->bytes -= letter->charge;
    letter->charge = 0;
    settle(conn);
}

void charge_header(struct conn *conn)
{
    size_t now = opt_frame_taken(conn->reader);
    if (now != conn->header_bytes) {
        conn->bytes = conn->bytes - conn->header_bytes + now;
        conn->header_bytes = now;
        settle(conn);
    }
}

void charge_grant(struct conn *conn, size_t allowance, size_t granted)
{
    buffer_promise(conn->granted, granted);
    conn->allowance = allowance;
    conn->granted = granted;
    settle(conn);
}

bool charge_letters_full(const struct conn *conn)
{
    return conn->letters >= LETTERS_MAX + conn->granted / GRANT_PER_LETTER;
}
