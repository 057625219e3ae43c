/* letter — a request on its way from a loop to the engine, and back as the reply.
 *
 * The loop that owns the connection makes a letter when a frame's header has arrived,
 * reads the frame's data into the letter's buffer, and posts it to the engine. The
 * engine keeps it as long as it needs the data, writes the answer into it, and posts it
 * back to the loop it came from, which sends the answer and frees the letter. So each
 * letter has one owner at any time, data is never copied, and the loop counts what is
 * in flight by counting its own letters:
 *
 *   loop: letter_new -> read data -> mailbox_post(engine)
 *   engine: ... -> answer_send / answer_nothing -> letter_return
 *   loop: send frames from the pieces -> letter_free (drops the pieces' references),
 *         or letter_renew for the next request
 *
 * The one kind that the engine makes is a part of an answer. It comes to the loop
 * before the letter of the answer does, and is the loop's from then on.
 */
#ifndef OPTIMD_SERVER_BASE_LETTER_H
#define OPTIMD_SERVER_BASE_LETTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"
#include "server/base/mailbox.h"

struct conn;    /* the loop's; the engine never looks inside */
struct peer;    /* the engine's; the loop never looks inside */
struct quota;   /* server/base/quota.h */
struct region;  /* server/base/region.h */
struct version; /* server/base/version.h */

enum {
    LETTER_GRADIENTS, /* in offers */
    LETTER_WEIGHTS,
    LETTER_OFFERS
};

enum letter_kind {
    LETTER_REQUEST, /* request and data are filled in */
    LETTER_PART,    /* the engine's own: frames of an answer whose letter comes later */
    LETTER_ANSWERED, /* to the engine: a request that somebody else has answered */
    LETTER_CLOSED,   /* the connection is gone; last letter of its peer */
    LETTER_ACCEPTED, /* to a loop: serve this socket */
    LETTER_STOP      /* to the engine, or a loop: drain and end its thread */
};

/* Weights to send: a run of floats inside a published version (or a buffer of the
 * letter's own), and the segment it answers, with the count of its elements. Contiguous
 * runs of one frame are merged; rows are sent as they are, so they must fit a frame.
 * One that is unchanged is only named, and may have no values. */
struct piece {
    const float *values;
    struct opt_segment segment;
    struct version *version; /* one reference, dropped by letter_free; may be NULL */
    bool unchanged;          /* the asker has the values: they are not sent */
    bool gone;               /* in a part of the answer, before the rest of it */
};

struct letter {
    struct letter *next; /* in a mailbox or a queue of its owner */
    enum letter_kind kind;
    struct mailbox *home; /* of the loop that made it */
    struct conn *conn;
    struct peer *peer;
    bool lease_expired;  /* LETTER_CLOSED: by silence, not by a broken connection */
    uint64_t silent_ms;  /* and how long that was */
    int socket;          /* LETTER_ACCEPTED: takes it */
    bool refuse;         /* LETTER_ACCEPTED: only to say that there are too many */
    bool is_table;       /* the loop's: counted among the connection's tables */
    size_t charge;       /* the loop's: bytes counted as in flight for this letter */
    struct quota *room;  /* for what the engine makes for the answer; NULL: no limit, */
    bool guest;          /* on the account of guests */
    size_t ahead;        /* bytes that the engine is going to take for the request */
    size_t paid;         /* bytes taken of it (letter_pay) until the letter is back */
    uint64_t began_ns;   /* uv_hrtime when the frame's header was complete, */
    uint64_t arrived_ns; /* the frame, */
    uint64_t answered_ns; /* and when the engine gave the letter back */

    /* the request */
    struct opt_arena arena; /* request's strings and arrays, and the reply's */
    struct opt_request request;
    uint8_t *data; /* 64-byte aligned, or NULL */
    size_t data_size;
    size_t data_capacity;
    uint8_t *small; /* memory for short data, or NULL; it stays with the letter */
    struct region *region; /* where the values of a push given by place are, one
                              reference; NULL: in data */
    size_t placed;         /* bytes of them */
    size_t nonfinite; /* first NaN or infinity among data's elements, SIZE_MAX: none
                         (pushes only) */

    /* the answer */
    bool silent;  /* no answer: only give the letter back */
    bool hang_up; /* close the connection after the answer */
    size_t
        allowance;  /* if not 0: bytes the connection may have in flight from now on, */
    size_t granted; /* and how many of them the engine has reserved memory for */
    struct opt_reply reply;
    uint64_t awaits; /* index of the record before which it is not to leave */
    uint8_t *table;  /* serialized table to send as data, malloc'd, or NULL */
    size_t table_size;
    struct piece *pieces; /* in reply order: the loop cuts them into frames */
    size_t piece_count;
    size_t piece_capacity; /* the array is kept for the next answer unless it is long */
    bool planned;          /* the pieces are those that the request asks for */
    size_t filled;         /* pieces that have their values, or need none */
    size_t copied;        /* pieces whose rows have been copied, or that have no rows */
    size_t noted;         /* pieces whose values its worker's recall has */
    enum opt_dtype dtype; /* of the pieces on the wire */
    struct region *weights; /* where the peer can read pieces itself, one reference;
                               NULL: they are sent */
    bool lent;              /* some have been given by place */
    struct region
        *offers[LETTER_OFFERS]; /* files that go with the answer, references */
};

/* A queue of letters, linked by next. All zeros: an empty one. */
struct letters {
    struct letter *first, *last;
};
void letters_append(struct letters *letters, struct letter *letter);
/* Its first, which is there no more, or NULL. */
struct letter *letters_take(struct letters *letters);

/* An empty letter; NULL if there is no memory. arena_limit bounds request and reply. */
struct letter *letter_new(struct mailbox *home, struct conn *conn, struct peer *peer,
                          size_t arena_limit);
void letter_free(struct letter *letter);

/* Make a letter that has served an empty one, which keeps some memory: a request like
 * the last one then needs none from elsewhere. */
void letter_renew(struct letter *letter, struct mailbox *home, struct conn *conn,
                  struct peer *peer, size_t arena_limit);

/* Make room for size bytes of data, 64-byte aligned, huge pages where large. False if
 * there is no memory. */
bool letter_data(struct letter *letter, size_t size);

/* Forget what was read of the request, and give that memory back: it is read again. */
void letter_forget(struct letter *letter);

/* Give the data's memory back before the letter itself goes. Only this, letter_renew
 * and letter_free do that: it does not come from malloc. */
void letter_drop_data(struct letter *letter);

/* Memory for a table of size bytes, to be sent as the answer's data. False: there is
 * none, and the letter has been given its error. */
bool letter_table(struct letter *letter, size_t size);

/* Drop the pieces there are and make room for count others, which are all zero. False
 * if there is no memory. */
bool letter_pieces(struct letter *letter, size_t count);

/* Give up the last pieces, so many at most: the answer has served. */
void letter_drop_last(struct letter *letter, size_t most);
/* Give the pieces up: the answer is another one. */
void letter_drop_pieces(struct letter *letter);

/* Bytes that the letter holds: itself, request, data, answer. What pieces refer to is
 * the engine's; what a kept buffer has beyond what the data needs has been counted as
 * kept. */
size_t letter_memory(const struct letter *letter);

/* Before memory is taken for the answer: room for that many bytes more. False: there is
 * none now, and the request is to be refused with RESOURCE_EXHAUSTED. In the engine's
 * turn. */
bool letter_pay(struct letter *letter, size_t bytes);
/* The same, but the answer is then that there is no room. */
bool letter_pay_or_fail(struct letter *letter, size_t bytes);
/* Give so many of them back, or all that are left. Any owner. */
void letter_refund(struct letter *letter, size_t bytes);

/* Set the answer to an error (its sentence is copied into the arena). Of the
 * first frame of a push whose fate the error does not tell, this copy was not taken. */
void letter_refuse(struct letter *letter, const struct opt_error *error);
/* The same, of its parts. NONE as detail: the status says all that there is to do. */
void letter_fail(struct letter *letter, enum opt_status status, enum opt_detail detail,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* What the request pushes, a frame of it, or NULL. */
const struct opt_push *letter_push(const struct letter *letter);

/* What the request pulls, or NULL. Of a push_pull only its last frame need say that. */
const struct opt_pull *letter_pull(const struct letter *letter);

/* A copy of text that lives as long as the letter; "" if its arena has no room. */
const char *letter_text(struct letter *letter, const char *text);

/* Give the letter back to its loop. In the engine's turn. */
void letter_return(struct letter *letter);

#endif
