/* mailbox — letters waiting for a thread.
 *
 * Any thread posts, the owner takes all of them at once; order is kept per sender. A
 * post links its letter under the lock and wakes the owner only if the box was empty.
 * The number of letters is bounded by their senders: a loop stops reading a connection
 * whose letters in flight have reached its limit, so nothing is ever dropped here.
 */
#ifndef OPTIMD_SERVER_MAILBOX_H
#define OPTIMD_SERVER_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct letter;

struct mailbox {
    uv_mutex_t lock; /* guards first, last, closed */
    struct letter *first, *last;
    uv_cond_t filled; /* owner is a plain thread (engine) */
    uv_async_t *wake; /* owner is a loop; NULL otherwise */
};

/* For a thread that waits in mailbox_wait. Returns 0 or a libuv error. */
int mailbox_init(struct mailbox *box);
/* For a libuv loop: wake is sent when the box fills; it is the caller's. */
int mailbox_init_async(struct mailbox *box, uv_async_t *wake);
void mailbox_fini(struct mailbox *box);

/* Takes the letter. Any thread. */
void mailbox_post(struct mailbox *box, struct letter *letter);

/* Whether there is a letter. The owner, and threads that work for it. */
bool mailbox_filled(struct mailbox *box);

/* All letters in order, linked by next, or NULL. Owner. */
struct letter *mailbox_take(struct mailbox *box);

/* The same, but waits until there is one or timeout_ns has passed. Owner, plain thread.
 */
struct letter *mailbox_wait(struct mailbox *box, uint64_t timeout_ns);

#endif
