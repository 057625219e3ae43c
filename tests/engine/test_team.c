/* test_team — who works when work is shared out: the threads of the team for the thread
 * whose team it is, and nobody else for any other.
 */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <uv.h>

#include "server/base/team.h"

enum { THREADS = 4, THINGS = 1000 };

struct count {
    struct team *team;
    _Atomic int calls;
    _Atomic size_t seats; /* bits: which have been used */
    _Atomic unsigned char done[THINGS];
};

static void work(struct seat *seat, void *argument)
{
    struct count *count = argument;
    atomic_fetch_add(&count->calls, 1);
    atomic_fetch_or(&count->seats, (size_t)1 << (seat - count->team->seats));
}

static void do_one(size_t number, void *argument)
{
    struct count *count = argument;
    atomic_fetch_add(&count->done[number], 1);
}

static void run_all(void *argument)
{
    struct count *count = argument;
    team_run(count->team, true, work, count);
    team_each(count->team, true, 1, THINGS, 7, do_one, count);
}

static void expect_each_once(struct count *count)
{
    for (size_t i = 0; i < THINGS; i++) {
        cr_assert_eq(count->done[i], i > 0, "thing %zu: %d times", i, count->done[i]);
    }
}

Test(team, works_with_all_its_threads_for_the_one_whose_it_is)
{
    struct team *team = team_new(THREADS, THREADS, 0);
    struct count count = { .team = team };
    run_all(&count);
    cr_assert_eq(count.calls, team_size(team));
    cr_assert_eq(count.seats, ((size_t)1 << team_size(team)) - 1);
    expect_each_once(&count);
    team_free(team);
}

Test(team, opens_no_region_for_another_thread)
{
    struct team *team = team_new(THREADS, THREADS, 0);
    struct count count = { .team = team };
    uv_thread_t loop;
    cr_assert_eq(uv_thread_create(&loop, run_all, &count), 0);
    uv_thread_join(&loop);
    cr_assert_eq(count.calls, 1);
    cr_assert_eq(count.seats, 1);
    expect_each_once(&count);
    team_free(team);
}

Test(team, calls_alone_what_is_not_worth_a_team)
{
    struct team *team = team_new(THREADS, THREADS, 0);
    struct count count = { .team = team };
    team_run(team, false, work, &count);
    cr_assert_eq(count.calls, 1);
    team_free(team);
}

/* The runtime ends threads that a smaller region does without, and starts them anew. */
Test(team, grows_and_shrinks)
{
    struct team *team = team_new(2, THREADS, 1);
    for (int i = 0; i < 4; i++) {
        struct count count = { .team = team };
        team_gather(team, i % 2 == 0);
        run_all(&count);
        cr_assert_eq(count.calls, team_size(team));
        expect_each_once(&count);
    }
    team_free(team);
}
