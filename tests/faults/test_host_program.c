/* The client library in programs that do not treat it well: descriptors closed or used
 * up, threads cancelled, processes forked. It may refuse to work; it never ends the
 * program, never holds it up, and never lets a child change what its parent sends.
 */
#define _GNU_SOURCE /* close_range */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/sanitized.h"

enum { PATIENCE_S = 20, RIGHT = 0, WRONG = 1 };

/* What the children are given; each is a process of its own. */
static struct daemon_process daemon_;

/* Exit status of a child that runs check, or 128 + the signal that ended it. */
static int in_child(int (*check)(int), int argument)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE_S);
        _exit(check(argument));
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A whole life of a client: connect, create, push, close. */
static enum optclient_status work(void)
{
    const struct optclient_tensor tensor = { .name = "w" };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    struct optclient_options options = test_options();
    struct optclient_values push = { .values = &(float){ 1 } };
    struct optclient *client = NULL;
    struct optclient_model *model;
    options.connect_timeout_ms = 1000;
    enum optclient_status status =
        optclient_connect(daemon_.address, &options, &client);
    if (status == OPTCLIENT_OK) {
        status =
            optclient_create(client, "m", "sgd", &policy, &tensor, 1, NULL, &model);
    }
    if (status == OPTCLIENT_OK) {
        status = optclient_push(model, &push, 1, NULL, NULL);
    }
    optclient_close(client);
    return status;
}

static int nothing(int argument)
{
    return argument;
}

/* ------------------------------------------------------------ standard descriptors */

static int work_without(int closed)
{
    for (int fd = 0; fd <= 2; fd++) {
        if ((closed >> fd & 1) != 0) {
            close(fd);
        }
    }
    bool well = work() == OPTCLIENT_OK && in_child(nothing, RIGHT) == RIGHT &&
                work() == OPTCLIENT_OK;
    return well ? RIGHT : WRONG;
}

Test(host_program, may_have_closed_any_of_its_standard_descriptors)
{
    daemon_start(&daemon_, NULL);
    for (int closed = 0; closed < 8; closed++) {
        cr_expect_eq(in_child(work_without, closed), RIGHT, "closed: %d", closed);
    }
    daemon_stop(&daemon_);
}

/* ------------------------------------------------------------ few descriptors */

/* Work with so many descriptors left. */
static int work_with(int left)
{
    const struct rlimit limit = { 64, 64 };
    int last = -1, fd;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return WRONG;
    }
    while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
        last = fd;
    }
    for (int i = 0; i < left; i++) {
        close(last - i);
    }
    enum optclient_status status = work();
    bool told = status == OPTCLIENT_OK || strlen(optclient_error()) > 0;
    return told && in_child(nothing, RIGHT) == RIGHT ? RIGHT : WRONG;
}

Test(host_program, may_have_any_number_of_descriptors_left)
{
    daemon_start(&daemon_, NULL);
    for (int left = 0; left <= 12; left++) {
        cr_expect_eq(in_child(work_with, left), RIGHT, "%d left", left);
    }
    daemon_stop(&daemon_);
}

static int lower_the_limit(int limit_of)
{
    const struct rlimit limit = { (rlim_t)limit_of, (rlim_t)limit_of };
    if (work() != OPTCLIENT_OK || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return WRONG;
    }
    return in_child(nothing, RIGHT);
}

Test(host_program, may_lower_its_limit_and_fork)
{
    daemon_start(&daemon_, NULL);
    cr_expect_eq(in_child(lower_the_limit, 3), RIGHT);
    daemon_stop(&daemon_);
}

/* ------------------------------------------------------------ descriptors of others */

static void *wait_in_push(void *argument)
{
    struct optclient_values push = { .values = &(float){ 1 } };
    return optclient_push(argument, &push, 1, NULL, NULL) == OPTCLIENT_OK ? argument
                                                                          : NULL;
}

static void *sleep_on(void *argument)
{
    pause();
    return argument;
}

/* A model whose round does not close, so that a push waits. */
static struct optclient_model *open_endless(struct optclient **client)
{
    const struct optclient_tensor tensor = { .name = "w" };
    const struct optclient_policy policy = { .min_workers = 1000 };
    const struct optclient_options options = test_options();
    struct optclient_model *model = NULL;
    if (optclient_connect(daemon_.address, &options, client) == OPTCLIENT_OK) {
        (void)optclient_create(*client, "endless", "sgd", &policy, &tensor, 1, NULL,
                               &model);
    }
    return model;
}

/* Wait until a push is in the daemon's open round. */
static bool push_waits(void)
{
    struct optclient *looker = NULL;
    const struct optclient_options options = { .worker = "" };
    bool found = optclient_connect(daemon_.address, &options, &looker) == OPTCLIENT_OK;
    while (found) {
        struct optclient_description *description;
        found = optclient_describe(looker, "endless", &description) == OPTCLIENT_OK;
        bool waits = found && description->worker_count > 0 &&
                     description->workers[0].pushed != 0;
        if (found) {
            optclient_description_free(description);
        }
        if (waits) {
            break;
        }
    }
    optclient_close(looker);
    return found;
}

/* Close everything from one descriptor on, while a push waits. */
static int rob(int first)
{
    struct optclient *client = NULL;
    struct optclient_model *model = open_endless(&client);
    pthread_t waiter;
    void *applied = client;
    if (model == NULL || pthread_create(&waiter, NULL, wait_in_push, model) != 0 ||
        !push_waits() || close_range((unsigned)first, ~0U, 0) != 0) {
        return WRONG;
    }
    optclient_close(client);
    pthread_join(waiter, &applied);
    return applied == NULL ? RIGHT : WRONG;
}

Test(host_program, may_close_descriptors_that_are_not_its_own)
{
    daemon_start(&daemon_, NULL);
    for (int first = 3; first < 14; first++) {
        cr_expect_eq(in_child(rob, first), RIGHT, "from %d on", first);
    }
    daemon_stop(&daemon_);
}

/* ------------------------------------------------------------ cancelled threads */

/* Cancel a thread that waits in a push; the client goes on working, and can be closed.
 */
static int cancel_one(int waits)
{
    struct optclient *client = NULL;
    struct optclient_model *model = open_endless(&client);
    pthread_t first, second;
    void *ended;
    if (model == NULL || pthread_create(&first, NULL, wait_in_push, model) != 0 ||
        !push_waits() || pthread_create(&second, NULL, sleep_on, NULL) != 0) {
        return WRONG;
    }
    pthread_cancel(waits ? first : second);
    struct optclient_counter *counters;
    size_t count;
    if (optclient_statistics(client, &counters, &count) != OPTCLIENT_OK) {
        return WRONG; /* the lock is free */
    }
    optclient_statistics_free(counters);
    optclient_close(client);
    pthread_cancel(second);
    pthread_join(first, &ended);
    pthread_join(second, NULL);
    return RIGHT;
}

Test(host_program, may_cancel_a_thread_that_waits_in_a_call)
{
    if (UNDER_THREAD_SANITIZER) {
        cr_skip_test("ThreadSanitizer knows no thread that is cancelled");
    }
    daemon_start(&daemon_, NULL);
    cr_expect_eq(in_child(cancel_one, 0), RIGHT);
    cr_expect_eq(in_child(cancel_one, 1), RIGHT);
    daemon_stop(&daemon_);
}

/* ------------------------------------------------------------ forks */

static float *view;

static int write_to_view(int argument)
{
    (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer would explain it */
    view[0] = (float)argument;
    return WRONG; /* it was there */
}

Test(host_program, has_children_that_do_not_share_memory_with_the_daemon)
{
    enum { COUNT = 1 << 20 };
    const uint64_t shape[] = { COUNT };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    const struct optclient_values push = { .values = NULL };
    float *weights = calloc(COUNT, sizeof(*weights));
    struct optclient_values pull = { .values = weights };
    struct optclient_model *model;
    char address[DAEMON_PATH + 32];
    daemon_start(&daemon_, NULL);
    snprintf(address, sizeof(address), "unix:%s/socket", daemon_.directory);
    struct optclient *client = test_connect(address, NULL);
    expect_ok(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model));
    view = optclient_gradient(model, 0);
    cr_assert_not_null(view);
    for (size_t i = 0; i < COUNT; i++) {
        view[i] = 1;
    }
    /* The child writes in vain, or to memory of its own. */
    cr_expect_eq(in_child(write_to_view, 1000), 128 + SIGSEGV);
    struct optclient_values given = push;
    given.values = view;
    expect_ok(optclient_push(model, &given, 1, NULL, NULL));
    expect_ok(optclient_pull(model, &pull, 1, NULL, NULL));
    cr_expect_float_eq(weights[0], -1.0F, 0);
    optclient_close(client);
    free(weights);
    daemon_stop(&daemon_);
}

/* ------------------------------------------------------------ what does not heal */

/* A path through a file does not become a folder by waiting; a daemon that is not there
 * yet comes. */
Test(host_program, is_told_at_once_what_does_not_heal, .timeout = 20)
{
    struct optclient_options options = test_options();
    struct optclient *client = NULL;
    options.connect_timeout_ms = 15000;
    expect_status(optclient_connect("unix:/dev/null/socket", &options, &client),
                  OPTCLIENT_FAILED_PRECONDITION);
    cr_expect_not_null(strstr(optclient_error(), "Not a directory"), "%s",
                       optclient_error());
    options.connect_timeout_ms = 300;
    expect_status(
        optclient_connect("unix:/tmp/optimd-nobody/socket", &options, &client),
        OPTCLIENT_DEADLINE_EXCEEDED);
}
