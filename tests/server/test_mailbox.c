#include "server/base/mailbox.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "server/base/letter.h"

enum { SENDERS = 4, EACH = 20000 };

static const uint64_t second_ns = UINT64_C(1000000000);

static struct letter *wait_and_take(struct mailbox *box, uint64_t timeout_ns)
{
    mailbox_await(box, timeout_ns);
    return mailbox_take(box);
}

/* Letters that say who sent them, and the how-manieth they are. */
static struct letter *letters_new(size_t count, int sender)
{
    struct letter *letters = calloc(count, sizeof(*letters));
    cr_assert_not_null(letters);
    for (size_t i = 0; i < count; i++) {
        letters[i].socket = sender;
        letters[i].data_size = i;
    }
    return letters;
}

Test(mailbox, is_empty_at_first)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    cr_expect_null(mailbox_take(&box));
    mailbox_fini(&box);
}

Test(mailbox, gives_all_letters_in_order)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    struct letter *letters = letters_new(3, 0);
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < 3; i++) {
            mailbox_post(&box, &letters[i]);
        }
        struct letter *letter = mailbox_take(&box);
        for (size_t i = 0; i < 3; i++, letter = letter->next) {
            cr_assert_eq(letter, &letters[i]);
        }
        cr_expect_null(letter);
        cr_expect_null(mailbox_take(&box));
    }
    free(letters);
    mailbox_fini(&box);
}

Test(mailbox, wait_ends_when_the_time_is_over)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    uint64_t before = uv_hrtime();
    cr_expect_null(wait_and_take(&box, 20000000));
    uint64_t waited = uv_hrtime() - before;
    cr_expect_geq(waited, UINT64_C(20000000));
    cr_expect_lt(waited, 5 * second_ns);
    cr_expect_null(wait_and_take(&box, 0));
    mailbox_fini(&box);
}

Test(mailbox, gives_light_letters_to_whoever_works_for_the_owner)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    struct letter *letters = letters_new(3, 0);
    mailbox_leave(&box, &letters[0]);
    mailbox_leave(&box, &letters[1]);
    cr_expect_eq(mailbox_take_light(&box), &letters[0]);
    cr_expect_eq(letters[0].next, &letters[1]);
    cr_expect_not(mailbox_filled(&box));
    /* One that was posted keeps all of them for the owner, in order. */
    mailbox_leave(&box, &letters[0]);
    mailbox_post(&box, &letters[1]);
    mailbox_leave(&box, &letters[2]);
    cr_expect_null(mailbox_take_light(&box));
    cr_expect_eq(wait_and_take(&box, UINT64_MAX), &letters[0]);
    cr_expect_eq(letters[1].next, &letters[2]);
    free(letters);
    mailbox_fini(&box);
}

Test(mailbox, lets_the_owner_go_once_it_is_roused)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    mailbox_rouse(&box);
    mailbox_await(&box, UINT64_MAX);
    uint64_t before = uv_hrtime();
    mailbox_await(&box, 20000000);
    cr_expect_geq(uv_hrtime() - before, UINT64_C(20000000));
    mailbox_fini(&box);
}

struct post {
    struct mailbox *box;
    struct letter *letters;
    size_t count;
};

static void post_all(void *argument)
{
    const struct post *post = argument;
    for (size_t i = 0; i < post->count; i++) {
        mailbox_post(post->box, &post->letters[i]);
    }
}

/* The longest time there is must not turn into no time at all. */
Test(mailbox, waits_for_ever_if_asked_to)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    struct letter *letters = letters_new(1, 0);
    struct post post = { .box = &box, .letters = letters, .count = 1 };
    uv_thread_t thread;
    cr_assert_eq(uv_thread_create(&thread, post_all, &post), 0);
    cr_expect_eq(wait_and_take(&box, UINT64_MAX), letters);
    uv_thread_join(&thread);
    free(letters);
    mailbox_fini(&box);
}

/* Check a chain against what has come from each sender so far. Only a mistake is worth
 * an assertion: each one is a message to the runner of the tests. */
static size_t check_chain(const struct letter *letter, size_t next[SENDERS])
{
    size_t count = 0;
    for (; letter != NULL; letter = letter->next) {
        if (letter->data_size != next[letter->socket]) {
            cr_assert_fail("sender %d: %zu instead of %zu", letter->socket,
                           letter->data_size, next[letter->socket]);
        }
        next[letter->socket]++;
        count++;
    }
    return count;
}

static void start_senders(struct mailbox *box, struct post posts[SENDERS],
                          uv_thread_t threads[SENDERS])
{
    for (int i = 0; i < SENDERS; i++) {
        posts[i] =
            (struct post){ .box = box, .letters = letters_new(EACH, i), .count = EACH };
        cr_assert_eq(uv_thread_create(&threads[i], post_all, &posts[i]), 0);
    }
}

static void join_senders(struct post posts[SENDERS], uv_thread_t threads[SENDERS])
{
    for (int i = 0; i < SENDERS; i++) {
        uv_thread_join(&threads[i]);
        free(posts[i].letters);
    }
}

Test(mailbox, loses_and_reorders_nothing_between_threads)
{
    struct mailbox box;
    cr_assert_eq(mailbox_init(&box), 0);
    struct post posts[SENDERS];
    uv_thread_t threads[SENDERS];
    start_senders(&box, posts, threads);
    size_t next[SENDERS] = { 0 };
    for (size_t got = 0; got < (size_t)SENDERS * EACH;) {
        struct letter *letter = wait_and_take(&box, 10 * second_ns);
        if (letter == NULL) {
            cr_assert_fail("a wake-up was lost after %zu letters", got);
        }
        got += check_chain(letter, next);
    }
    cr_expect_null(mailbox_take(&box));
    join_senders(posts, threads);
    mailbox_fini(&box);
}

struct receiver {
    struct mailbox box;
    uv_async_t wake;
    uv_timer_t limit;
    size_t next[SENDERS];
    size_t got;
    size_t wakes;
};

static void on_wake(uv_async_t *wake)
{
    struct receiver *receiver = wake->data;
    receiver->wakes++;
    receiver->got += check_chain(mailbox_take(&receiver->box), receiver->next);
    if (receiver->got == (size_t)SENDERS * EACH) {
        uv_close((uv_handle_t *)wake, NULL);
        uv_close((uv_handle_t *)&receiver->limit, NULL);
    }
}

static void on_limit(uv_timer_t *timer)
{
    const struct receiver *receiver = timer->data;
    cr_assert_fail("a wake-up was lost after %zu letters", receiver->got);
}

Test(mailbox, wakes_a_loop_for_every_letter)
{
    struct receiver receiver = { .got = 0 };
    uv_loop_t loop;
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(uv_async_init(&loop, &receiver.wake, on_wake), 0);
    uv_timer_init(&loop, &receiver.limit);
    receiver.wake.data = &receiver;
    receiver.limit.data = &receiver;
    uv_timer_start(&receiver.limit, on_limit, 20000, 0);
    cr_assert_eq(mailbox_init_async(&receiver.box, &receiver.wake), 0);
    struct post posts[SENDERS];
    uv_thread_t threads[SENDERS];
    start_senders(&receiver.box, posts, threads);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(receiver.got, (size_t)SENDERS * EACH);
    cr_expect_leq(receiver.wakes, receiver.got);
    join_senders(posts, threads);
    mailbox_fini(&receiver.box);
    cr_expect_eq(uv_loop_close(&loop), 0);
}
