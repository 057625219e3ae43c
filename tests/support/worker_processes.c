/* worker_processes — see worker_processes.h. */
#include "tests/support/worker_processes.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/raw.h"

enum { TIMEOUT_MS = 20000, EVENT_MS = 20000 };

static const uint64_t shape[] = { CREW_ELEMENTS };
static const struct optclient_tensor tensor = { .name = "w",
                                                .shape = shape,
                                                .rank = 1 };

/* ---------------------------------------------------------------- a worker */

bool worker_start(struct worker *worker, const char *address, const char *name)
{
    return worker_start_with(worker, address, name, "sgd(lr=1, aggregate=sum)");
}

bool worker_start_with(struct worker *worker, const char *address, const char *name,
                       const char *specification)
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

void expect_pushed(const struct worker *worker, const char *name, int connected)
{
    for (int i = 0; i < 100000; i++) {
        struct optclient_description *description;
        bool found = false;
        cr_assert_eq(optclient_describe(worker->client, "model", &description),
                     OPTCLIENT_OK, "%s", optclient_error());
        for (size_t k = 0; k < description->worker_count; k++) {
            const struct optclient_worker_info *other = &description->workers[k];
            found = found || (strcmp(other->name, name) == 0 && other->pushed &&
                              other->connected == connected);
        }
        optclient_description_free(description);
        if (found) {
            return;
        }
    }
    cr_assert_fail("%s has not pushed, or is %sconnected", name,
                   connected ? "not " : "");
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

/* ---------------------------------------------------------------- half a push */

/* The push as bytes; malloc'd. */
static uint8_t *whole_push(uint32_t model, const float *values,
                           size_t ends[CREW_FRAMES])
{
    static const uint64_t offsets[CREW_FRAMES + 1] = { 0, 16384, 2 * 16384,
                                                       CREW_ELEMENTS };
    uint8_t *all = NULL;
    size_t size = 0;
    for (uint32_t i = 0; i < CREW_FRAMES; i++) {
        uint64_t count = offsets[i + 1] - offsets[i];
        const struct opt_segment segment = { .offset = offsets[i], .count = count };
        const struct opt_request push = {
            .id = 3,
            .message = OPT_MESSAGE_PUSH,
            .body.push = { .model = model,
                           .sequence = 1,
                           .samples = 1,
                           .segments = &segment,
                           .segment_count = 1,
                           .frame = i,
                           .last = i + 1 == CREW_FRAMES },
        };
        size_t frame_size;
        uint8_t *frame = raw_frame(&push, values + offsets[i],
                                   (size_t)count * sizeof(float), &frame_size);
        all = realloc(all, size + frame_size);
        memcpy(all + size, frame, frame_size);
        free(frame);
        size += frame_size;
        ends[i] = size;
    }
    return all;
}

void push_ends(size_t ends[CREW_FRAMES])
{
    static const float values[CREW_ELEMENTS];
    free(whole_push(1, values, ends));
}

void push_in_part(int events, uint16_t port, const char *name, const float *values,
                  size_t bytes)
{
    int fd = raw_connect(port);
    const struct opt_request open = {
        .id = 2,
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = "model", .join = true },
    };
    struct raw_reply reply;
    raw_hello(fd, name);
    if (!raw_request(fd, &open, NULL, 0) || !raw_receive(fd, &reply)) {
        _exit(3);
    }
    size_t ends[CREW_FRAMES];
    uint8_t *all = whole_push(reply.reply.body.model.model, values, ends);
    size_t last = ends[CREW_FRAMES - 1];
    if (!raw_send(fd, all, bytes < last ? bytes : last)) {
        _exit(3);
    }
    tell(events, 1);
    pause();
    free(all);
}
