/* team — see team.h. */
#include "server/base/team.h"

#include <stdatomic.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "common/log.h"
#include "server/base/memory.h"
#include "server/base/supply.h"

static void seat_fini(struct seat *seat)
{
    free(seat->contributions);
    free(seat->factors);
    free(seat->samples);
    free(seat->forms);
    memory_free(seat->direction, TEAM_DIRECTION * sizeof(float));
    memory_free(seat->compensated, OPT_BLOCK * sizeof(float));
}

static bool seat_init(struct seat *seat, size_t contributions)
{
    seat->contributions = calloc(contributions, sizeof *seat->contributions);
    seat->factors = calloc(contributions, sizeof *seat->factors);
    seat->samples = calloc(contributions, sizeof *seat->samples);
    seat->forms = calloc(contributions, sizeof *seat->forms);
    seat->direction = memory_new(TEAM_DIRECTION * sizeof(float));
    seat->compensated = memory_new(OPT_BLOCK * sizeof(float));
    return seat->contributions != NULL && seat->factors != NULL &&
           seat->samples != NULL && seat->forms != NULL && seat->direction != NULL &&
           seat->compensated != NULL;
}

bool team_reserve(struct team *team, size_t contributions)
{
    if (contributions <= team->contributions) {
        return true;
    }
    size_t room = contributions < 16 ? 16 : contributions + contributions / 2;
    struct seat *seats = calloc((size_t)team->most, sizeof *seats);
    bool made = seats != NULL;
    for (int i = 0; made && i < team->most; i++) {
        made = seat_init(&seats[i], room);
    }
    struct seat *dropped = made ? team->seats : seats;
    for (int i = 0; dropped != NULL && i < team->most; i++) {
        seat_fini(&dropped[i]);
    }
    free(dropped);
    if (made) {
        team->seats = seats;
        team->contributions = room;
    }
    return made;
}

#ifdef _OPENMP
static void do_nothing(struct seat *seat, void *argument)
{
    (void)seat, (void)argument;
}

static void tell_lowered(int threads, int wanted)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_WARN, "threads_lowered",
                    "threads=%d wanted=%d why=%s", threads, wanted,
                    "no more can be started; see the limits of processes and threads");
}

/* The runtime would end the process if a thread could not be started, and it ends those
 * that a smaller region does without. */
static void start_threads(struct team *team)
{
    int missing = team->threads - team->started;
    int found = missing > 0 ? supply_threads(missing) : missing;
    if (found < missing) {
        tell_lowered(team->started + found, team->threads);
        team->threads = team->started + found;
    }
    team->started = team->threads;
}
#endif

/* Have no more threads than there are, with so many for others. */
static void fit(struct team *team, int others)
{
#ifdef _OPENMP
    int wanted = team->most;
    int found = supply_threads(wanted - 1 + others) - others;
    if (found < wanted - 1) {
        team->most = found > 0 ? 1 + found : 1;
        team->usual = team->usual < team->most ? team->usual : team->most;
        tell_lowered(team->most, wanted);
    }
#else
    (void)team, (void)others;
#endif
}

struct team *team_new(int usual, int most, int others)
{
    struct team *team = calloc(1, sizeof *team);
    if (team == NULL) {
        return NULL;
    }
    team->owner = uv_thread_self();
    team->usual = usual;
    team->most = most > usual ? most : usual;
    team->started = 1;
    fit(team, others);
    team->work = calloc(TEAM_WORK, sizeof *team->work);
    if (team->work == NULL || !team_reserve(team, 1)) {
        team_free(team);
        return NULL;
    }
#ifdef _OPENMP
    /* Of the calling thread's regions only: this is the engine's own. */
    omp_set_dynamic(0);
    team_gather(team, false);
    team_run(team, true, do_nothing, NULL);
#else
    team_gather(team, false);
#endif
    return team;
}

void team_gather(struct team *team, bool most)
{
    team->threads = most ? team->most : team->usual;
}

void team_free(struct team *team)
{
    if (team == NULL) {
        return;
    }
    for (int i = 0; team->seats != NULL && i < team->most; i++) {
        seat_fini(&team->seats[i]);
    }
    free(team->seats);
    free(team->work);
    free(team);
}

int team_size(const struct team *team)
{
    uv_thread_t self = uv_thread_self();
    return uv_thread_equal(&self, &team->owner) ? team->threads : 1;
}

void team_run(struct team *team, bool together,
              void (*work)(struct seat *seat, void *argument), void *argument)
{
#ifdef _OPENMP
    /* A region of one thread would still wake all that wait at its barriers. */
    if (together && team_size(team) > 1) {
        start_threads(team);
#pragma omp parallel num_threads(team->threads)
        work(&team->seats[omp_get_thread_num()], argument);
        return;
    }
#endif
    (void)together;
    work(&team->seats[0], argument);
}

/* Things that the threads take as they go. */
struct counted {
    _Atomic size_t next;
    size_t end, batch;
    void (*each)(size_t number, void *argument);
    void *argument;
};

static void take_counted(struct seat *seat, void *argument)
{
    struct counted *counted = argument;
    (void)seat;
    for (;;) {
        size_t begin = atomic_fetch_add_explicit(&counted->next, counted->batch,
                                                 memory_order_relaxed);
        if (begin >= counted->end) {
            return;
        }
        size_t rest = counted->end - begin;
        size_t count = rest < counted->batch ? rest : counted->batch;
        for (size_t i = 0; i < count; i++) {
            counted->each(begin + i, counted->argument);
        }
    }
}

void team_each(struct team *team, bool together, size_t begin, size_t end, size_t batch,
               void (*each)(size_t number, void *argument), void *argument)
{
    struct counted counted = {
        .next = begin, .end = end, .batch = batch, .each = each, .argument = argument
    };
    team_run(team, together, take_counted, &counted);
}
