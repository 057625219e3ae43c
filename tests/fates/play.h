/* play — one order of events around one push, played with the real daemon and the real
 * library, and judged.
 *
 * Two workers, A and B, train one model (cast.h). A pushes (the push under test); its
 * copies wait on their way, and each event says what happens next. When all events have
 * happened everything passes again, B pushes as long as A waits, and whoever is alive
 * pushes once more. As soon as a worker has the result of a push it uses the memory in
 * which that lay for something else. Then everything that was told is judged (judge.h).
 */
#ifndef OPTIMD_TESTS_FATES_PLAY_H
#define OPTIMD_TESTS_FATES_PLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum event {
    COPY_WHOLE,   /* the copy on its way arrives */
    COPY_HALF,    /* half of its bytes do */
    COPY_DAMAGED, /* it arrives with a bit flipped */
    COPY_REFUSED, /* it arrives where there is no memory for it */
    NO_ROOM,  /* it arrives where requests in flight have no room, and waits too long */
    CUT,      /* A's connection breaks; A is back with the next copy at once */
    DEADLINE, /* the push's time is over */
    CANCELLED,  /* A closes the model, and opens it again */
    TAKEN_OVER, /* another process takes A's name */
    RESTARTED,  /* A is killed, and started again under its name */
    LEASE_LOST, /* nothing of A passes for longer than its lease and the grace */
    FULL,       /* A's connection breaks while the daemon takes no others */
    ROUND,      /* B pushes; if half of its push is there, the rest comes */
    HALF_OF_B,  /* B pushes, and half of the bytes arrive for now */
    STOPPED,    /* the daemon stops, and does not come back */
    ANSWER_CUT, /* A's connection breaks in the middle of an answer with weights: the
                   push under test is a push_pull */
    PULL_CUT,   /* the same of an answer to a pull: A asks for one */
    EVENTS
};

enum policy { SYNC, ASYNC, BOUNDED, BACKUP, SAMPLES, SHARD, POLICIES };
enum transport { TCP, SHARED, TRANSPORTS };

extern const char *const policy_names[POLICIES];
extern const char *const transport_names[TRANSPORTS];

enum { EVENTS_MOST = 12 };

struct order {
    enum policy policy;
    enum transport transport;
    enum event events[EVENTS_MOST];
    size_t count;
    bool pulls;    /* the push under test is a push_pull */
    bool blocks;   /* a thread of A's waits for it in the library */
    bool in_place; /* pushes lie in memory of the library's, as far as they are large */
    uint64_t chunks; /* not 0: reads get pieces whose sizes follow from it */
};

/* Whether its push under test is a push_pull. */
bool order_pulls(const struct order *order);

/* Whether the order means something: no event in it is one that cannot happen. */
bool order_is_possible(const struct order *order);

/* "A's copy arrives, A's connection breaks, ..." */
void order_sentence(const struct order *order, char *out, size_t size);

/* Play it. False: what was told is not true, or somebody is not served; why says it.
 * trace gets what everybody was told and the weights, the same for the same order. */
bool order_play(const struct order *order, char *why, size_t size, char *trace,
                size_t trace_size);

#endif
