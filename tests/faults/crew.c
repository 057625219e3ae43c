/* crew — see crew.h. */
#include "tests/faults/crew.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT_MS = 20000, EVENT_MS = 20000 };

static const uint64_t shape[] = { CREW_ELEMENTS };
static const struct optclient_tensor tensor = { .name = "w",
                                                .shape = shape,
                                                .rank = 1 };
static const char specification[] = "sgd(lr=1, aggregate=sum)";

/* ---------------------------------------------------------------- a worker */

bool worker_start(struct worker *worker, const char *address, const char *name)
{
    struct optclient_options options = optclient_options_default();
    const struct optclient_policy policy = { .min_workers = 2 };
    options.worker = name;
    options.timeout_ms = TIMEOUT_MS;
    *worker = (struct worker){ .gradient = calloc(CREW_ELEMENTS, sizeof(float)) };
    if (worker->gradient == NULL ||
        optclient_connect(address, &options, &worker->client) != OPTCLIENT_OK ||
        optclient_create(worker->client, "model", specification, &policy, &tensor, 1,
                         NULL, &worker->model) != OPTCLIENT_OK) {
        fprintf(stderr, "%s: %s\n", name, optclient_error());
        return false;
    }
    return true;
}

enum optclient_status worker_try_push(struct worker *worker, int number)
{
    struct optclient_values values = { .values = worker->gradient };
    struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
        worker->gradient[i] = (float)number;
    }
    enum optclient_status status =
        optclient_push(worker->model, &values, 1, NULL, &result);
    if (result.fate == OPTCLIENT_APPLIED || result.fate == OPTCLIENT_DUPLICATE) {
        worker->acknowledged += number;
    }
    return status;
}

bool worker_push(struct worker *worker, int number)
{
    int64_t before = worker->acknowledged;
    if (worker_try_push(worker, number) != OPTCLIENT_OK ||
        worker->acknowledged != before + number) {
        fprintf(stderr, "push: %s\n", optclient_error());
        return false;
    }
    return true;
}

bool worker_pull(struct worker *worker)
{
    struct optclient_values values = { .values = worker->gradient };
    return optclient_pull(worker->model, &values, 1, NULL, NULL) == OPTCLIENT_OK;
}

void worker_stop(struct worker *worker)
{
    optclient_model_close(worker->model);
    optclient_close(worker->client);
    free(worker->gradient);
}

void expect_sum(struct worker *worker, int64_t sum)
{
    size_t wrong = 0;
    cr_assert(worker_pull(worker), "%s", optclient_error());
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
        wrong += worker->gradient[i] != (float)-sum;
    }
    cr_expect_eq(wrong, 0, "%zu elements are wrong; the first is %g, not %g", wrong,
                 (double)worker->gradient[0], (double)-sum);
}

/* ---------------------------------------------------------------- processes */

struct process spawn(void (*body)(int events))
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        if (getppid() == parent) {
            body(ends[1]);
        }
        _exit(1);
    }
    close(ends[1]);
    return (struct process){ .pid = pid, .events = ends[0] };
}

void tell(int events, int32_t what)
{
    if (write(events, &what, sizeof(what)) != (ssize_t)sizeof(what)) {
        _exit(2);
    }
}

int32_t await(const struct process *process)
{
    struct pollfd ready = { .fd = process->events, .events = POLLIN };
    int32_t what = -1;
    cr_assert_eq(poll(&ready, 1, EVENT_MS), 1, "nothing happened");
    cr_assert_eq(read(process->events, &what, sizeof(what)), (ssize_t)sizeof(what),
                 "the worker has ended");
    return what;
}

void reap(struct process *process, int number)
{
    int status;
    if (number != 0) {
        cr_assert_eq(kill(process->pid, number), 0);
    }
    cr_assert_eq(waitpid(process->pid, &status, 0), process->pid);
    if (number == 0) {
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    }
    close(process->events);
}
