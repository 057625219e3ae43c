/* Hundreds of signals under load: those that the daemon has no use for disturb nobody,
 * and however many there are of those that stop it, it stops as it does at one.
 *
 * Gradients are ones, applied by sgd with learning rate 1, so that the weights count
 * the pushes.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum {
    WORKERS = 2,
    ELEMENTS = 3 * 16384 + 7,
    SIGNALS = 900,
    TOGETHER = 15, /* beside a push */
    WAIT_MS = 20000,
    SAME_WISH_MS = 1000, /* TERM so soon after the first is the same wish */
    AT_ONCE_MS = 10000,
    LINES_MAX = 200 /* in the log, of SIGNALS that are ignored in a few seconds */
};

static int useless(unsigned i)
{
    const int numbers[] = { SIGHUP,  SIGUSR1, SIGUSR2, SIGALRM,  SIGVTALRM,
                            SIGPROF, SIGIO,   SIGPWR,  SIGXCPU,  SIGSTKFLT,
                            SIGPIPE, SIGXFSZ, SIGTTOU, SIGRTMIN, SIGRTMAX };
    return numbers[i % (sizeof numbers / sizeof *numbers)];
}

static struct {
    struct daemon_process daemon;
    atomic_uint pushes; /* applied, of all workers */
    atomic_bool over;   /* all signals have been sent */
} crew;

struct link {
    struct optclient *client;
    struct optclient_model *model;
    float *values;
};

static void link_open(struct link *link)
{
    const uint64_t shape[] = { ELEMENTS };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    struct optclient_options options = test_options();
    require(optclient_connect(crew.daemon.address, &options, &link->client) ==
            OPTCLIENT_OK);
    require(optclient_create(link->client, "m", "sgd(lr=1)", &policy, &tensor, 1, NULL,
                             &link->model) == OPTCLIENT_OK);
    link->values = malloc(ELEMENTS * sizeof *link->values);
    require(link->values != NULL);
}

static void link_close(struct link *link)
{
    free(link->values);
    optclient_model_close(link->model);
    optclient_close(link->client);
}

/* Push until all signals have been sent, and once more. */
static void *work(void *unused)
{
    struct link link;
    link_open(&link);
    for (size_t i = 0; i < ELEMENTS; i++) {
        link.values[i] = 1;
    }
    for (bool last = false; !last;) {
        struct optclient_values gradient = { .values = link.values };
        struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
        last = atomic_load(&crew.over);
        require(optclient_push(link.model, &gradient, 1, NULL, &result) ==
                OPTCLIENT_OK);
        require(result.fate == OPTCLIENT_APPLIED);
        atomic_fetch_add(&crew.pushes, 1);
    }
    link_close(&link);
    return unused;
}

static size_t lines_with(const char *text)
{
    char *log = daemon_log(&crew.daemon);
    size_t count = 0;
    for (const char *at = log; (at = strstr(at, text)) != NULL; at++) {
        count++;
    }
    free(log);
    return count;
}

/* No connection is cut, no push is lost or applied twice, and the log stays short. */
Test(signals, that_mean_nothing_do_not_disturb_training, .timeout = 60)
{
    pthread_t threads[WORKERS];
    struct link reader;
    daemon_start(&crew.daemon, NULL);
    for (size_t i = 0; i < WORKERS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, work, NULL), 0);
    }
    for (unsigned i = 0; i < SIGNALS; i++) {
        unsigned before = atomic_load(&crew.pushes);
        daemon_signal(&crew.daemon, useless(i));
        /* The next ones come when something has been pushed beside these. */
        while (i % TOGETHER == 0 && atomic_load(&crew.pushes) == before) {
            sched_yield();
        }
    }
    atomic_store(&crew.over, true);
    for (size_t i = 0; i < WORKERS; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    cr_assert(daemon_alive(&crew.daemon));
    link_open(&reader);
    struct optclient_values weights = { .values = reader.values };
    struct optclient_result result = { 0 };
    expect_ok(optclient_pull(reader.model, &weights, 1, NULL, &result));
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(reader.values[i], -(float)atomic_load(&crew.pushes), "element %zu",
                     i);
    }
    cr_expect_eq(test_counter(reader.client, "workers_reconnected"), 0);
    cr_expect_eq(test_counter(reader.client, "workers_lost"), 0);
    link_close(&reader);
    cr_expect(daemon_logged(&crew.daemon, "signal_ignored", WAIT_MS));
    cr_expect_lt(lines_with("signal_ignored"), LINES_MAX);
    daemon_stop(&crew.daemon);
}

/* Whoever hangs up in time is waited for: the stop is in order. */
Test(signals, that_stop_it_are_one_wish_however_many_come_together, .timeout = 60)
{
    daemon_start(&crew.daemon, NULL);
    int fd = raw_connect(crew.daemon.port);
    raw_hello(fd, "");
    uint64_t begin = test_now_ms();
    for (unsigned i = 0; i < SIGNALS && test_now_ms() - begin < SAME_WISH_MS / 2; i++) {
        daemon_signal(&crew.daemon, i % 2 == 0 ? SIGTERM : SIGINT);
        daemon_signal(&crew.daemon, useless(i));
    }
    close(fd);
    cr_expect_eq(daemon_wait(&crew.daemon, WAIT_MS), 0);
    cr_expect_eq(lines_with(" stopping "), 1);
    daemon_remove(&crew.daemon);
}

/* While it waits for somebody who does not hang up, what means nothing still means
 * nothing, ALRM above all, which limits the stop; TERM a second later ends it. */
Test(signals, that_mean_nothing_do_not_cut_a_stop_short_and_term_does, .timeout = 60)
{
    daemon_start(&crew.daemon, NULL);
    int fd = raw_connect(crew.daemon.port);
    raw_hello(fd, "");
    daemon_signal(&crew.daemon, SIGTERM);
    cr_assert(daemon_logged(&crew.daemon, " stopping ", WAIT_MS));
    for (unsigned i = 0; i < SIGNALS; i++) {
        daemon_signal(&crew.daemon, useless(i));
    }
    cr_expect(daemon_alive(&crew.daemon));
    int code = -1;
    for (int waited = 0; code < 0 && waited < SAME_WISH_MS + AT_ONCE_MS;
         waited += 100) {
        daemon_signal(&crew.daemon, SIGTERM);
        code = daemon_wait(&crew.daemon, 100);
    }
    cr_expect_eq(code, 128 + SIGTERM);
    close(fd);
    daemon_remove(&crew.daemon);
}
