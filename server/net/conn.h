/* conn — one connection: what it holds and waits for, and the state it is in.
 *
 *   OPEN ----------> ENDING ----------> LINGERING ----------> CLOSING
 *    reads,           reads no more,     has sent all,         libuv closes
 *    answers          sends what is      reads and throws      the handle
 *                     queued             away, so that the
 *                                        last answer is not
 *                                        lost to a reset
 *
 * Any of them may go straight to CLOSING. The struct is freed when the handle is closed
 * and every letter is back from the engine.
 *
 * Here is what the rooms of a connection have in common: what it may hold (charge.h),
 * memory shared with the peer (peer_memory.h), answers on their way out
 * (answer_frames.h, batch.h, send.h), requests on their way in (receive.h), how long it
 * may take for all that (deadlines.h). They note what has happened; what follows from
 * it is done by service.h, which is above them. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_CONN_H
#define OPTIMD_SERVER_NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "common/frame.h"
#include "common/status.h"
#include "server/base/letter.h"
#include "server/net/limits.h"
#include "server/net/loop.h"
#include "server/net/watch.h"

struct batch;
struct message_row;
struct peer_memory;

enum conn_state { CONN_OPEN, CONN_ENDING, CONN_LINGERING, CONN_CLOSING };

/* Why a connection does not read. */
enum conn_pause {
    PAUSE_NONE,
    PAUSE_LETTERS,    /* as many requests in flight as it may have */
    PAUSE_CONNECTION, /* no room in what it may hold */
    PAUSE_OUTBOX,     /* the peer does not read the answers it has */
    PAUSE_BUDGET      /* no room in what all may hold */
};

/* What has arrived so far cannot go on without room for more. */
enum conn_arrival {
    ARRIVAL_FREE,
    ARRIVAL_LONG,  /* a header that is longer than the reader's memory */
    ARRIVAL_EARLY, /* data before the header */
    ARRIVAL_HEADER /* a request, and its data */
};

enum { CONN_WORKER = 64 };

/* A push some frames of which the engine holds, waiting for the others. */
struct open_push {
    uint64_t id;
    size_t letters;
};

struct conn {
    struct loop *loop;
    struct conn *previous, *next; /* in the loop's list */
    struct conn *ready_next;
    bool is_ready;
    struct conn *held_next; /* in the loop's list of those with bytes that */
    bool is_held;           /* no event tells of */
    struct watch watch;     /* with the transport */
    enum conn_state state;
    bool abandoned;           /* what was under way has been given up, as it closes */
    bool closed;              /* the watch is */
    bool shakes;              /* a handshake of TLS is under way */
    bool refused;             /* was over the limit of connections */
    bool left;                /* the peer went by itself */
    const char *reason;       /* why it ended, for the log */
    uint64_t answer_bytes;    /* longest frame that the peer takes */
    char worker[CONN_WORKER]; /* beginning of the identity, for the log */
    struct peer *peer;        /* the engine's; given away with the farewell */
    struct letter *farewell;  /* LETTER_CLOSED; made early so that it cannot fail */

    /* what comes in (receive.c) */
    struct opt_frame_reader *reader;
    struct letter *arriving;       /* whose frame is being read */
    const struct message_row *row; /* of it */
    bool unwanted;                 /* its data is thrown away, its answer is an error */
    bool thrown;                   /* its data came early and there was no place */
    enum conn_arrival arrival;     /* of it */
    size_t examined;               /* bytes of its data that have been looked at */
    size_t scanned;                /* of these, whole elements found finite */
    XXH3_state_t *hash;            /* of its data; NULL until the first checksum */
    uint64_t frames;               /* received */
    uint64_t moved;                /* opt_frame_moved when last counted */

    /* what it holds (charge.c) */
    enum conn_pause pause;
    uint64_t paused_ms;     /* since when */
    size_t letters;         /* alive, the farewell not counted */
    size_t tables;          /* of these, asking for a table */
    size_t bytes;           /* charged to them and to batches; of these, */
    size_t header_bytes;    /* taken by the reader */
    size_t allowance;       /* bytes it may hold, of which the engine */
    size_t granted;         /* has reserved memory for so many */
    size_t reserved;        /* bytes taken from the common budget, */
    bool reserved_as_guest; /* as a guest of it */
    struct open_push pushes[PUSHES_MAX];
    size_t push_count;

    /* memory in common with the peer (peer_memory.c) */
    struct peer_memory *peer_memory; /* NULL: it cannot be had */
    uint64_t files_ms;               /* since when files are to be sent; 0: none are */

    /* what goes out (send.c) */
    struct letter *answers, *answers_last; /* not yet sent completely */
    size_t piece;                          /* of the first answer: where its next */
    uint64_t element;                      /* frame begins */
    struct batch *batches, *batches_last;  /* not yet written completely: */
    int batch_count;                       /* so many, */
    size_t queue;         /* and bytes that the transport has not taken */
    bool blocked;         /* no more goes until it can be written to */
    size_t outgoing;      /* answers not yet written, */
    uint64_t outgoing_ms; /* some since then */
    bool starved;         /* the next frame waits for room in the common budget, */
    uint64_t starved_ms;  /* since then */

    /* who it is, and since when (ms of the loop's clock) */
    bool said_hello; /* hello has come, */
    bool let_in;     /* and was granted */
    bool is_worker;
    uint32_t lease_ms;  /* 0 until hello has been answered, */
    uint32_t beat_ms;   /* as the time between heartbeats */
    uint64_t beaten_ms; /* when it was last told that it is held back */
    uint64_t since_ms;  /* connected; later: entered the state it is in */
    uint64_t heard_ms;  /* last byte received, or taken by the peer */
    uint64_t frame_ms;  /* begin of the frame that is being received */
    uint64_t frame_bytes;
    uint64_t written_ms;  /* last progress of writing */
    size_t written_queue; /* what was left to write then */
    uint64_t taken;       /* bytes written, in all */
    uint64_t rate_ms;     /* since when it is watched how fast the peer reads, */
    uint64_t rate_bytes;  /* and what it had taken in all then */
};

/* What it may and must not, and the loop's clock. */
const struct net_limits *conn_limits(const struct conn *conn);
uint64_t conn_now(const struct conn *conn);

/* The connection of a watch. */
struct conn *conn_of(struct watch *watch);

/* The peer's, for the log. */
const char *conn_address(const struct conn *conn);

/* Have the connection served before the callback returns. */
void conn_ready(struct conn *conn);

/* A letter for a request; NULL: no memory. */
struct letter *conn_letter(struct conn *conn, size_t arena_limit);
/* One that is done with: give back what it held. */
void conn_release(struct conn *conn, struct letter *letter);
/* Some pieces further with those that have very many, of which the connection holds all
 * until then; the loop is woken if there are more. */
void conn_empty_some(struct loop *loop);

/* Send what is queued, then end. reason is for the log, here and below. */
void conn_end(struct conn *conn, const char *reason);

/* End at once. */
void conn_close(struct conn *conn, const char *reason);

/* All is sent: wait for the peer to close. */
void conn_linger(struct conn *conn);

/* Tell the engine, once, that nothing more comes. */
void conn_bid_farewell(struct conn *conn, bool lease_expired, uint64_t silent_ms);

/* The loop itself was held up, or did not read: nobody else is to blame for that time.
 */
void conn_forgive(struct conn *conn, uint64_t ms);

#endif
