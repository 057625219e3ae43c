/* operator — see operator.h. */
#include "tests/support/operator.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_ARGUMENTS = 24 };

char operator_out[1 << 17];
char operator_error[1 << 13];
struct daemon_process operator_server;

void operator_start(void)
{
    daemon_start(&operator_server, NULL);
    cr_assert_eq(setenv("OPTIMD_SERVER", operator_server.address, 1), 0);
}

void operator_stop(void)
{
    daemon_stop(&operator_server);
}

static void become(const int outputs[2], char *const *arguments)
{
    const char *build = getenv("OPTIMD_BUILD");
    char program[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(outputs[0], STDOUT_FILENO);
    dup2(outputs[1], STDERR_FILENO);
    snprintf(program, sizeof(program), "%s/optctl", build == NULL ? "build" : build);
    execv(program, arguments);
    _exit(127);
}

static void append(char *to, size_t capacity, const char *text)
{
    size_t used = strlen(to);
    snprintf(to + used, capacity - used, "%s", text);
}

/* Both streams to their ends. */
static void read_all(int out, int error)
{
    struct pollfd ends[] = { { .fd = out, .events = POLLIN },
                             { .fd = error, .events = POLLIN } };
    operator_out[0] = operator_error[0] = '\0';
    while (ends[0].fd >= 0 || ends[1].fd >= 0) {
        cr_assert_gt(poll(ends, 2, -1), 0);
        for (size_t i = 0; i < 2; i++) {
            char text[4096];
            if (ends[i].fd < 0 || ends[i].revents == 0) {
                continue;
            }
            ssize_t got = read(ends[i].fd, text, sizeof(text) - 1);
            if (got <= 0) {
                ends[i].fd = -1;
                continue;
            }
            text[got] = '\0';
            append(operator_out, sizeof(operator_out), text);
            if (i == 1) {
                append(operator_error, sizeof(operator_error), text);
            }
        }
    }
}

int operator_run(const char *const *given)
{
    char *arguments[MOST_ARGUMENTS] = { (char *)"optctl" };
    for (size_t i = 0; given[i] != NULL; i++) {
        cr_assert_lt(i + 2, (size_t)MOST_ARGUMENTS);
        arguments[i + 1] = (char *)(uintptr_t)given[i];
    }
    int out[2], error[2];
    cr_assert_eq(pipe(out), 0);
    cr_assert_eq(pipe(error), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        become((const int[]){ out[1], error[1] }, arguments);
    }
    close(out[1]);
    close(error[1]);
    read_all(out[0], error[0]);
    close(out[0]);
    close(error[0]);
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

json_t *operator_json(void)
{
    json_error_t error;
    json_t *value = json_loads(operator_out, 0, &error);
    cr_assert(value != NULL, "%s: %s", error.text, operator_out);
    return value;
}

const char *operator_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    cr_assert(text != NULL, "%s: %s", key, operator_out);
    return text;
}

void operator_write_file(const char *text, char path[64])
{
    snprintf(path, 64, "/tmp/optimd-optctl-XXXXXX");
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, text, strlen(text)), (ssize_t)strlen(text));
    cr_assert_eq(close(file), 0);
}
