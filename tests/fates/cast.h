/* cast — the daemon, the workers and their pushes in a play (play.h).
 *
 * A and B train one model of three shards. A push takes three frames and has an element
 * of its own in each shard, so the weights tell how often it counts. In the second
 * shard it has two: one of them in the large tensor, which goes by place where memory
 * is shared.
 */
#ifndef OPTIMD_TESTS_FATES_CAST_H
#define OPTIMD_TESTS_FATES_CAST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/optclient.h"
#include "tests/fates/play.h"

enum {
    SHARDS = 3,
    OF_SHARD = 64, /* tensors, each a block, make a shard */
    DENSE = SHARDS * OF_SHARD,
    /* Behind each shard's there is a sparse one, which nobody pushes: it has a shard of
     * its own, so the next begin another. */
    TENSORS = DENSE + SHARDS,
    /* All are of one element but this one, in the middle of the second shard. It fills
     * a frame, so a push takes three: the first has all of the first shard. */
    LARGE = OF_SHARD + OF_SHARD / 2,
    PUSHES_MOST = 24,
    PUSH_MS = 20000, /* a push's deadline */
    LEASE_MS = 5000,
    GRACE_MS = 1000,
    ROOM_MS = 3000, /* longest wait for room in flight */
    PARTIES = 4     /* A, B, A's other lives */
};

/* What a worker was told of a push. */
struct told {
    bool wanted; /* somebody has asked, and can be told */
    bool ended;
    enum optclient_status status;
    struct optclient_result result;
    char sentence[600];
};

struct pushed {
    int who;
    struct optclient_call *call;
    bool in_thread; /* a thread waits for it in the library */
    pthread_t thread;
    struct told told;
    bool used_again; /* its memory is used for something else */
    bool looked;     /* the judge has seen that it ended */
    float *gradient;
    float *large;   /* where the large tensor's values are, if not in gradient */
    float *weights; /* of what is pulled with it; NULL: nothing is */
};

/* A pull of A's first life. */
struct pulled {
    struct optclient_call *call;
    struct told told;
    float *weights;
};

struct party {
    struct optclient *client; /* NULL: not there */
    struct optclient_model *model;
    float *large; /* the library's memory for the large tensor's gradient, or NULL */
};

struct cast {
    const struct order *order;
    struct engine *engine; /* NULL: the daemon has stopped */
    struct loops *loops;
    bool is_full;                      /* it takes no connections */
    struct party parties[PARTIES];     /* 0 is A, 1 is B; 2 and 3 A's other lives */
    int living;                        /* which of them is A now */
    int others;                        /* of A's lives so far */
    struct pushed pushes[PUSHES_MOST]; /* 0 is the push under test */
    size_t push_count;
    struct pulled pull;
    int counts[PUSHES_MOST][SHARDS]; /* how often each counts, once that was read */
    uint64_t
        doubtful_ns[PARTIES]; /* when pushes of each were last in doubt (judge.h) */
    char *why;
    size_t why_size;
    bool failed;
};
extern struct cast cast;

/* Start the daemon, with A and B in its model. */
void cast_begin(const struct order *order, char *why, size_t size);
/* Everybody leaves: what is in the library ends. */
void cast_leave(void);
void cast_end(void);
/* What is told first stays. */
void cast_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A's first life ends without a word, and nobody asks it any more. */
void cast_kill_a(void);
/* Another life of A begins, and A is that from now on. */
void cast_appear_again(void);
void cast_open(int who);
void cast_close(struct party *party);
/* The daemon stops, as at SIGTERM. */
void cast_stop_daemon(void);

/* Push as a party, with the elements of a number of its own: that one. */
size_t cast_push(int who);
/* Take what has been told of all pushes by now. */
void cast_hear(void);
bool cast_has_ended(size_t push);
/* A's first life pulls, and does not wait. */
void cast_pull_of_a(void);
bool cast_pull_has_ended(void);
/* How often a push counts in each shard of weights that were pulled. */
void cast_count_in(const float *weights, size_t push, int counts[SHARDS]);
/* Read from the weights how often each push counts. */
bool cast_count(void);

/* The next copy of a push has no memory for its values; or finds no room in flight. */
void cast_refuse_data(bool refuse);
void cast_leave_no_room(bool none);

#endif
