/* mailbox — see mailbox.h. */
#include "server/base/mailbox.h"

#include <stddef.h>

#include "server/base/letter.h"

/* libuv adds the time of day to a wait, so a wait "for ever" must leave room for it. */
static const uint64_t longest_wait_ns = UINT64_C(86400) * 1000000000;

int mailbox_init(struct mailbox *box)
{
    *box = (struct mailbox){ .first = NULL };
    int code = uv_mutex_init(&box->lock);
    if (code != 0) {
        return code;
    }
    code = uv_cond_init(&box->filled);
    if (code != 0) {
        uv_mutex_destroy(&box->lock);
    }
    return code;
}

int mailbox_init_async(struct mailbox *box, uv_async_t *wake)
{
    int code = mailbox_init(box);
    if (code == 0) {
        box->wake = wake;
    }
    return code;
}

void mailbox_fini(struct mailbox *box)
{
    uv_cond_destroy(&box->filled);
    uv_mutex_destroy(&box->lock);
}

/* Put a letter at the end. With the lock held. */
static void append(struct mailbox *box, struct letter *letter)
{
    letter->next = NULL;
    if (box->first == NULL) {
        box->first = letter;
    } else {
        box->last->next = letter;
    }
    box->last = letter;
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
    uv_mutex_lock(&box->lock);
    append(box, letter);
    box->heavy = true;
    /* Woken under the lock: once it is released the owner may take the letter, find in
     * it that it has to end, and free the box. */
    if (!box->woken && !box->attended) {
        box->woken = true;
        if (box->wake != NULL) {
            uv_async_send(box->wake);
        } else {
            uv_cond_signal(&box->filled);
        }
    }
    uv_mutex_unlock(&box->lock);
}

void mailbox_leave(struct mailbox *box, struct letter *letter)
{
    uv_mutex_lock(&box->lock);
    append(box, letter);
    uv_mutex_unlock(&box->lock);
}

/* With the lock held. */
static struct letter *take_all(struct mailbox *box)
{
    struct letter *first = box->first;
    box->first = NULL;
    box->last = NULL;
    box->heavy = false;
    box->woken = false;
    return first;
}

bool mailbox_filled(struct mailbox *box)
{
    uv_mutex_lock(&box->lock);
    bool filled = box->first != NULL;
    uv_mutex_unlock(&box->lock);
    return filled;
}

struct letter *mailbox_take(struct mailbox *box)
{
    uv_mutex_lock(&box->lock);
    struct letter *first = take_all(box);
    box->attended = false;
    uv_mutex_unlock(&box->lock);
    return first;
}

struct letter *mailbox_take_light(struct mailbox *box)
{
    uv_mutex_lock(&box->lock);
    struct letter *first = box->heavy ? NULL : take_all(box);
    uv_mutex_unlock(&box->lock);
    return first;
}

void mailbox_attend(struct mailbox *box)
{
    uv_mutex_lock(&box->lock);
    box->attended = true;
    uv_mutex_unlock(&box->lock);
}

void mailbox_await(struct mailbox *box, uint64_t timeout_ns)
{
    if (timeout_ns > longest_wait_ns) {
        timeout_ns = longest_wait_ns;
    }
    uint64_t deadline = uv_hrtime() + timeout_ns;
    uv_mutex_lock(&box->lock);
    while (box->first == NULL && !box->roused) {
        uint64_t now = uv_hrtime();
        if (now >= deadline ||
            uv_cond_timedwait(&box->filled, &box->lock, deadline - now) != 0) {
            break;
        }
    }
    box->roused = false;
    uv_mutex_unlock(&box->lock);
}

void mailbox_rouse(struct mailbox *box)
{
    uv_mutex_lock(&box->lock);
    if (!box->roused) {
        box->roused = true;
        uv_cond_signal(&box->filled);
    }
    uv_mutex_unlock(&box->lock);
}
