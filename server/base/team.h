/* team — the threads that do updates, and what each of them needs beside the model.
 *
 * There is one team, and the daemon's only OpenMP region is in team_run. A loop that
 * serves letters in the engine's stead (thread.c) has no team: what it runs here, it
 * runs alone. Whoever has the engine's turn.
 */
#ifndef OPTIMD_SERVER_BASE_TEAM_H
#define OPTIMD_SERVER_BASE_TEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "common/optim/update.h"

enum {
    TEAM_WORK = 65536,         /* items of work in a portion, at most */
    TEAM_ELEMENTS = 256 << 10, /* fewer are done before a second thread is awake */
    TEAM_DIRECTION = 256 << 10 /* elements whose directions a thread can keep */
};

/* One block of one tensor, or a whole tensor. */
struct work {
    uint32_t tensor;
    uint32_t block; /* WORK_WHOLE: all of them, both passes */
    uint32_t place; /* of the tensor in the order of the phase */
};
#define WORK_WHOLE UINT32_MAX

/* One thread's scratch. */
struct seat {
    struct opt_contribution *contributions;
    double *factors;
    uint64_t *samples;
    enum opt_form *forms;
    bool writable;      /* the first contribution's values are fp32, and an update's */
    float *direction;   /* TEAM_DIRECTION */
    float *compensated; /* a block of a gradient */
};

struct team {
    int threads;          /* that work now */
    int usual, most;      /* while loops carry gradients, and while they have none to */
    int started;          /* that the OpenMP runtime has, the calling one included */
    struct seat *seats;   /* one per thread, of the most */
    size_t contributions; /* room in each */
    struct work *work;    /* of the portion */
    uv_thread_t owner;    /* whose region it is */
};

/* NULL: no memory. To be called on the thread whose OpenMP regions are the team's. Its
 * threads are started; those that cannot be had are done without, which the log tells.
 * So many others are left to be started by whoever needs them. */
struct team *team_new(int usual, int most, int others);
/* Work with the most from now on, or with the usual ones. Between regions. */
void team_gather(struct team *team, bool most);
void team_free(struct team *team);
/* Make room for that many contributions to one block. */
bool team_reserve(struct team *team, size_t contributions);

/* How many threads would work for the calling one: 1, unless it is the team's. */
int team_size(const struct team *team);
/* Have every thread of the team call work with a seat of its own, and wait for all. If
 * it is not worth a team, or the calling thread is not the one whose team it is, that
 * thread calls it alone; so work shares out what is to be done as it goes. */
void team_run(struct team *team, bool together,
              void (*work)(struct seat *seat, void *argument), void *argument);

/* The same for things with numbers from begin to end, end excluded, that cost about the
 * same: they are taken by so many at a time. */
void team_each(struct team *team, bool together, size_t begin, size_t end, size_t batch,
               void (*each)(size_t number, void *argument), void *argument);

#endif
