/* strikes — what happens to workers: they are killed and start again, stop for longer
 * or shorter than a lease, are cut off, and lose their name to another process. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/soak/soak.h"
#include "tests/support/proxy_faults.h"

static const double hang_seconds = 40; /* without progress of a worker on a model */
static const double end_seconds = 60;  /* for all to end */
static const double strike_least = 0.2, strike_most = 2.0; /* between two */
static const double stop_least = 0.2, stop_most = 9.0;     /* the lease is in between */

/* A process that was started for a worker. */
struct life {
    pid_t pid;       /* 0: there is none */
    double thaw;     /* when it goes on; 0: it is not stopped */
    double replaced; /* since when somebody else has had its name */
};

struct seat {
    struct life now, before; /* before: it has not come to know that it was replaced */
    unsigned before_it;      /* pushes that had been begun before this process could */
    unsigned taken[SOAK_MODELS];  /* pushes, when looked at last */
    double progress[SOAK_MODELS]; /* when that was more than before */
};

struct soak_seats {
    soak_start start;
    struct history *const *histories;
    uint64_t random;
    double time, next; /* now, and when somebody is struck again */
    struct seat seats[SOAK_WORKERS];
    unsigned counts[8]; /* of each kind of strike */
};

static double between(struct soak_seats *seats, double least, double most)
{
    return least + (most - least) * (double)lane_random(&seats->random, 1000) / 1000;
}

/* Pushes that a worker has begun, in all its lives. */
static unsigned begun(const struct soak_seats *seats, unsigned number)
{
    unsigned sum = 0;
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        sum += history_begun(seats->histories[m], number);
    }
    return sum;
}

static void begin_life(struct soak_seats *seats, unsigned number)
{
    struct seat *seat = &seats->seats[number];
    seat->before_it = begun(seats, number);
    seat->now = (struct life){ .pid = seats->start(number) };
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        seat->progress[m] = seats->time;
    }
}

static void stop(struct soak_seats *seats, struct life *life)
{
    kill(life->pid, SIGSTOP);
    life->thaw = seats->time + between(seats, stop_least, stop_most);
}

static void thaw(struct soak_seats *seats, struct life *life, double when)
{
    if (life->pid > 0 && life->thaw > 0 && life->thaw <= when) {
        life->thaw = 0;
        kill(life->pid, SIGCONT);
        life->replaced = life->replaced > 0 ? seats->time : 0;
    }
}

/* ---------------------------------------------------------------- strikes */

static bool strike_kill(struct soak_seats *seats, unsigned number)
{
    kill(seats->seats[number].now.pid, SIGKILL);
    waitpid(seats->seats[number].now.pid, NULL, 0);
    begin_life(seats, number);
    return true;
}

static bool strike_stop(struct soak_seats *seats, unsigned number)
{
    struct life *life = &seats->seats[number].now;
    if (life->thaw > 0) {
        return false;
    }
    stop(seats, life);
    return true;
}

static bool strike_cut(struct soak_seats *seats, unsigned number)
{
    kill(seats->seats[number].now.pid, SIGUSR1);
    return true;
}

/* Another process takes the name, of one that runs or that has just stopped. It must
 * have had it: of two that connect for the first time the later one has the name. */
static bool strike_take_over(struct soak_seats *seats, unsigned number)
{
    struct seat *seat = &seats->seats[number];
    if (seat->before.pid > 0 || begun(seats, number) == seat->before_it) {
        return false;
    }
    if (seat->now.thaw == 0 && lane_random(&seats->random, 3) == 0) {
        stop(seats, &seat->now);
    }
    seat->before = seat->now;
    seat->before.replaced = seats->time;
    begin_life(seats, number);
    return true;
}

static const struct strike {
    const char *name;
    unsigned share; /* how often it comes */
    bool (*hit)(struct soak_seats *seats, unsigned number);
} strikes[] = {
    { "kills", 3, strike_kill },
    { "stops", 2, strike_stop },
    { "hang-ups", 4, strike_cut },
    { "takeovers", 3, strike_take_over },
};
enum { STRIKES = sizeof strikes / sizeof strikes[0] };

static void strike(struct soak_seats *seats)
{
    unsigned number = (unsigned)lane_random(&seats->random, SOAK_WORKERS);
    unsigned sum = 0, which = 0;
    for (unsigned i = 0; i < STRIKES; i++) {
        sum += strikes[i].share;
    }
    unsigned drawn = (unsigned)lane_random(&seats->random, sum);
    while (drawn >= strikes[which].share) {
        drawn -= strikes[which++].share;
    }
    seats->counts[which] += strikes[which].hit(seats, number);
    seats->next = seats->time + between(seats, strike_least, strike_most);
}

/* ---------------------------------------------------------------- looking at them */

/* The process that had the name ends by itself as it comes to know that. */
static bool look_before(struct soak_seats *seats, unsigned number, char problem[512])
{
    struct life *life = &seats->seats[number].before;
    int status;
    if (life->pid > 0 && waitpid(life->pid, &status, WNOHANG) == life->pid) {
        life->pid = 0;
        seats->seats[number].before_it = begun(seats, number);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != SOAK_REPLACED) {
            snprintf(problem, 512, "worker %u, replaced, ended with status %d", number,
                     status);
        }
    } else if (life->pid > 0 && life->thaw == 0 &&
               seats->time - life->replaced > hang_seconds) {
        snprintf(problem, 512,
                 "worker %u has not been told for %.0f s that another "
                 "process has its name",
                 number, hang_seconds);
    }
    return problem[0] == '\0';
}

static bool look_now(struct soak_seats *seats, unsigned number, char problem[512])
{
    struct seat *seat = &seats->seats[number];
    int status;
    if (waitpid(seat->now.pid, &status, WNOHANG) == seat->now.pid) {
        seat->now.pid = 0;
        snprintf(problem, 512, "worker %u ended by itself, status %d", number, status);
        return false;
    }
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        unsigned taken = history_taken(seats->histories[m], number);
        if (taken > seat->taken[m] || seat->now.thaw > 0) {
            seat->taken[m] = taken;
            seat->progress[m] = seats->time;
        } else if (seats->time - seat->progress[m] > hang_seconds) {
            snprintf(problem, 512, "worker %u has had no push taken in %s for %.0f s",
                     number, soak_name(m), hang_seconds);
            return false;
        }
    }
    return true;
}

bool soak_seats_tick(struct soak_seats *seats, double now, char problem[512])
{
    bool good = true;
    seats->time = now;
    if (now >= seats->next) {
        strike(seats);
    }
    for (unsigned i = 0; i < SOAK_WORKERS && good; i++) {
        thaw(seats, &seats->seats[i].now, now);
        thaw(seats, &seats->seats[i].before, now);
        good = look_before(seats, i, problem) && look_now(seats, i, problem);
    }
    return good;
}

/* ---------------------------------------------------------------- begin and end */

struct soak_seats *soak_seats_new(soak_start start,
                                  struct history *const histories[SOAK_MODELS],
                                  uint64_t seed)
{
    struct soak_seats *seats = malloc(sizeof *seats);
    if (seats == NULL) {
        abort();
    }
    *seats = (struct soak_seats){
        .start = start, .histories = histories, .random = seed, .next = strike_most
    };
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        begin_life(seats, i);
    }
    return seats;
}

/* Take the end of a process that was asked for it. False: it had to be killed, or ended
 * otherwise than in order. */
static bool take_end(struct life *life, time_t deadline)
{
    const struct timespec tick = { .tv_nsec = 20 * 1000 * 1000 };
    int status = 0;
    pid_t ended = 0;
    while (life->pid > 0 && (ended = waitpid(life->pid, &status, WNOHANG)) == 0) {
        if (time(NULL) > deadline) {
            kill(life->pid, SIGKILL);
            waitpid(life->pid, &status, 0);
            break;
        }
        nanosleep(&tick, NULL);
    }
    bool good = life->pid == 0 ||
                (WIFEXITED(status) &&
                 (WEXITSTATUS(status) == EXIT_SUCCESS ||
                  (life->replaced > 0 && WEXITSTATUS(status) == SOAK_REPLACED)));
    life->pid = 0;
    return good;
}

bool soak_seats_end(struct soak_seats *seats, char problem[512])
{
    time_t deadline = time(NULL) + (time_t)end_seconds;
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        struct life *lives[] = { &seats->seats[i].now, &seats->seats[i].before };
        for (size_t l = 0; l < 2; l++) {
            thaw(seats, lives[l], seats->time + stop_most);
            if (lives[l]->pid > 0) {
                kill(lives[l]->pid, SIGTERM);
            }
        }
    }
    for (unsigned i = 0; i < SOAK_WORKERS; i++) {
        if (!take_end(&seats->seats[i].now, deadline) ||
            !take_end(&seats->seats[i].before, deadline)) {
            snprintf(problem, 512, "worker %u did not", i);
        }
    }
    return problem[0] == '\0';
}

bool soak_seats_counts(const struct soak_seats *seats, char text[256])
{
    bool all = true;
    size_t end = 0;
    for (unsigned i = 0; i < STRIKES; i++) {
        end += (size_t)snprintf(text + end, 256 - end, "%s%u %s", i == 0 ? "" : ", ",
                                seats->counts[i], strikes[i].name);
        all &= seats->counts[i] > 0;
    }
    return all;
}

void soak_seats_free(struct soak_seats *seats)
{
    free(seats);
}
