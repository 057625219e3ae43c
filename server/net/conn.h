/* conn — one connection: its life, its deadlines, and what it holds.
 *
 *   OPEN ----------> ENDING ----------> LINGERING ----------> CLOSING
 *    reads,           reads no more,     has sent all,         libuv closes
 *    answers          sends what is      reads and throws      the handle
 *                     queued             away, so that the
 *                                        last answer is not
 *                                        lost to a reset
 *
 * Any of them may go straight to CLOSING. The struct is freed when the handle is closed
 * and every letter is back from the engine. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_CONN_H
#define OPTIMD_SERVER_NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include <xxhash.h>

#include "common/frame.h"
#include "common/status.h"
#include "server/letter.h"
#include "server/net/limits.h"
#include "server/net/loop.h"

struct message_row;
struct sharing;

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

enum { CONN_ADDRESS = 64, CONN_WORKER = 64 };

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
    union {
        uv_handle_t any;
        uv_stream_t stream;
        uv_tcp_t tcp; /* also of a Unix socket: to libuv a stream is a stream */
    } handle;
    uv_shutdown_t shutdown;
    enum conn_state state;
    bool closed;        /* the handle is */
    bool refused;       /* was over the limit of connections */
    bool left;          /* the peer went by itself */
    const char *reason; /* why it ended, for the log */
    char address[CONN_ADDRESS];
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
    bool reading;

    /* what it holds (hold.c) */
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

    /* memory in common with the peer (share.c) */
    struct sharing *sharing; /* NULL: it cannot be had */
    uint64_t files_ms;       /* since when files are to be sent; 0: none are */

    /* what goes out (send.c) */
    struct letter *answers, *answers_last; /* not yet sent completely */
    size_t piece;                          /* of the first answer: where its next */
    uint64_t element;                      /* frame begins */
    int batches;                           /* handed to libuv, not yet written */
    size_t outgoing;                       /* answers not yet written, */
    uint64_t outgoing_ms;                  /* some since then */
    bool starved;        /* the next frame waits for room in the common budget, */
    uint64_t starved_ms; /* since then */

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
    uint64_t queued;      /* bytes handed to libuv, in all */
    uint64_t rate_ms;     /* since when it is watched how fast the peer reads, */
    uint64_t rate_bytes;  /* and what it had taken in all then */
};

/* Serve a socket (takes it, also on failure). refuse: answer that there are too many
 * connections, nothing else. */
void conn_open(struct loop *loop, int socket, bool refuse);

/* A letter is back from the engine. */
void conn_returned(struct conn *conn, struct letter *letter);

/* A letter is done with: give back what it held and free it. */
void conn_release(struct conn *conn, struct letter *letter);

/* Do what can be done now: read on, send, end, vanish. Called by loop_settle. */
void conn_serve(struct conn *conn);

/* Look at the deadlines. */
void conn_tick(struct conn *conn, uint64_t now_ms);

/* The loop itself was held up: nobody else is to blame for that time. */
void conn_forgive(struct conn *conn, uint64_t ms);

/* Tell the peer status and sentence (id 0), then end. reason is for the log. */
void conn_refuse(struct conn *conn, enum opt_status status, enum opt_detail detail,
                 const char *reason, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Send what is queued, then end. */
void conn_end(struct conn *conn, const char *reason);

/* End at once. */
void conn_close(struct conn *conn, const char *reason);

/* The daemon ends: tell the peer, then end. */
void conn_finish(struct conn *conn);

/* Begin or stop reading, as the state, the pause and the loop's stage ask for. */
void conn_update_reading(struct conn *conn);

#endif
