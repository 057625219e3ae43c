/* mailbox — letters waiting for a thread.
 *
 * Any thread posts, the owner takes all of them at once; order is kept per sender. A
 * post links its letter under the lock and wakes the owner, unless it has been woken
 * since it last took, or has said that it will look before it sleeps. The number of
 * letters is bounded by their senders: a loop stops reading a connection whose letters
 * in flight have reached its limit, so nothing is ever dropped here.
 *
 * A light letter is left without waking anybody: whoever leaves it sees to it that it
 * is taken, by the owner or in its stead (server/turn/thread.c).
 */
#ifndef OPTIMD_SERVER_BASE_MAILBOX_H
#define OPTIMD_SERVER_BASE_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct letter;

struct mailbox {
    uv_mutex_t lock; /* guards what follows */
    struct letter *first, *last;
    bool heavy;       /* a letter in it was posted, not left */
    bool woken;       /* the owner has been told that there are letters */
    bool roused;      /* mailbox_rouse was called */
    bool attended;    /* the owner takes before it sleeps */
    uv_cond_t filled; /* owner is a plain thread (engine) */
    uv_async_t *wake; /* owner is a loop; NULL otherwise */
};

/* For a thread that waits in mailbox_await. Returns 0 or a libuv error. */
int mailbox_init(struct mailbox *box);
/* For a libuv loop: wake is sent when the box fills; it is the caller's. */
int mailbox_init_async(struct mailbox *box, uv_async_t *wake);
void mailbox_fini(struct mailbox *box);

/* Takes the letter. Any thread. */
void mailbox_post(struct mailbox *box, struct letter *letter);

/* The same for a light letter. */
void mailbox_leave(struct mailbox *box, struct letter *letter);

/* Whether there is a letter. Any thread; by the time it is told it may have been taken,
 * unless the caller keeps the takers out. */
bool mailbox_filled(struct mailbox *box);

/* All letters in order, linked by next, or NULL. Owner. */
struct letter *mailbox_take(struct mailbox *box);

/* The same if all of them are light, else NULL: then the owner has been woken. Who
 * works in the owner's stead. */
struct letter *mailbox_take_light(struct mailbox *box);

/* The owner is awake, and takes before it sleeps: until then it need not be woken.
 * Owner. */
void mailbox_attend(struct mailbox *box);

/* Wait until there is a letter, the owner is roused, or timeout_ns has passed. Owner,
 * plain thread. */
void mailbox_await(struct mailbox *box, uint64_t timeout_ns);

/* End the owner's wait, or its next one. Any thread; plain threads' boxes only. */
void mailbox_rouse(struct mailbox *box);

#endif
