/* team — see team.h. */
#include "server/engine/team.h"

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
    int threads = most ? team->most : team->usual;
    if (threads == team->threads) {
        return;
    }
    team->threads = threads;
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
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

struct seat *team_seat(const struct team *team)
{
#ifdef _OPENMP
    return &team->seats[omp_get_thread_num()];
#else
    return &team->seats[0];
#endif
}
