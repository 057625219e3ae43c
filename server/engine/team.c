/* team — see team.h. */
#include "server/engine/team.h"

#include <stdatomic.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "server/engine/memory.h"

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

struct team *team_new(int usual, int most)
{
    struct team *team = calloc(1, sizeof *team);
    if (team == NULL) {
        return NULL;
    }
    team->owner = uv_thread_self();
    team->usual = usual;
    team->most = most > usual ? most : usual;
    team->work = calloc(TEAM_WORK, sizeof *team->work);
    if (team->work == NULL || !team_reserve(team, 1)) {
        team_free(team);
        return NULL;
    }
#ifdef _OPENMP
    /* Of the calling thread's regions only: this is the engine thread. */
    omp_set_dynamic(0);
#endif
    team_gather(team, false);
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
