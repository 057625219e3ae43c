/* Where optctl is run: at a terminal, with standard descriptors closed; and commands as
 * long as those of large models are.
 */
#define _XOPEN_SOURCE 700 /* posix_openpt */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/operator.h"

enum { WAIT_MS = 10000, BLOCKS = 24 };

TestSuite(optctl_surroundings, .init = operator_start, .fini = operator_stop);

/* `optctl --timeout 60s list` with a terminal for its standard error. */
static pid_t list_at_terminal(int *terminal)
{
    int end = posix_openpt(O_RDWR | O_NOCTTY);
    cr_assert(end >= 0 && grantpt(end) == 0 && unlockpt(end) == 0);
    int other = open(ptsname(end), O_RDWR | O_NOCTTY);
    cr_assert_geq(other, 0);
    pid_t child = fork();
    if (child == 0) {
        const char *build = getenv("OPTIMD_BUILD");
        char program[256];
        snprintf(program, sizeof(program), "%s/optctl",
                 build == NULL ? "build" : build);
        dup2(other, STDERR_FILENO);
        execl(program, "optctl", "--timeout", "60s", "list", (char *)NULL);
        _exit(127);
    }
    close(other);
    *terminal = end;
    return child;
}

/* Everything up to these words. */
static void await_words(int terminal, const char *words)
{
    char text[4096] = "";
    size_t used = 0;
    struct pollfd wait = { .fd = terminal, .events = POLLIN };
    while (strstr(text, words) == NULL) {
        cr_assert_eq(poll(&wait, 1, WAIT_MS), 1, "no \"%s\" in: %s", words, text);
        ssize_t got = read(terminal, text + used, sizeof(text) - 1 - used);
        cr_assert_gt(got, 0, "no \"%s\" in: %s", words, text);
        used += (size_t)got;
    }
}

/* Long before its time is over; and it goes on, as the daemon may come yet. */
Test(optctl_surroundings, at_a_terminal_the_first_failure_is_told_at_once)
{
    int terminal, status;
    daemon_signal(&operator_server, SIGSTOP);
    pid_t child = list_at_terminal(&terminal);
    await_words(terminal, "; trying on");
    daemon_signal(&operator_server, SIGCONT);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    close(terminal);
}

Test(optctl_surroundings, in_a_script_one_sentence_is_told_at_the_end)
{
    daemon_signal(&operator_server, SIGSTOP);
    cr_expect_eq(RUN("--timeout", "500ms", "list"), 1);
    cr_expect_null(strstr(operator_error, "trying on"), "%s", operator_error);
    daemon_signal(&operator_server, SIGCONT);
}

/* Its connection has none of their numbers, so nothing is printed into it. */
Test(optctl_surroundings, closed_descriptors_are_not_written_to)
{
    static const char *const closed[] = { ">&-", "2>&-", "<&- >&- 2>&-" };
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
        char name[2] = { (char)('a' + i), '\0' }, command[256];
        snprintf(command, sizeof(command),
                 "exec ${OPTIMD_BUILD-build}/optctl create %s --json --spec sgd "
                 "--tensor w:2 %s",
                 name, closed[i]);
        int status = system(command); /* NOLINT: of our own making */
        bool told = strstr(closed[i], " >&-") == NULL && closed[i][0] != '>';
        cr_expect_eq(WEXITSTATUS(status), told ? 0 : 1, "%s: %d", closed[i], status);
        cr_expect_eq(RUN("show", name), 0, "%s: %s", closed[i], operator_out);
    }
}

/* Layer-wise decay of the learning rate as large models are fine-tuned with. */
Test(optctl_surroundings, a_specification_of_24_blocks_fits_the_command_line)
{
    static char text[16384];
    size_t used = (size_t)snprintf(text, sizeof(text), "adam(lr=1e-3) + decay(0.05)");
    for (int block = 0; block < BLOCKS; block++) {
        double scale = pow(0.75, BLOCKS - block);
        used += (size_t)snprintf(
            text + used, sizeof(text) - used,
            " + tensors(\"blocks.%d.*bias\", weight_decay=0, lr_scale=%.4g)"
            " + tensors(\"blocks.%d.norm*\", weight_decay=0, lr_scale=%.4g)"
            " + tensors(\"blocks.%d.*\", lr_scale=%.4g)",
            block, scale, block, scale, block, scale);
    }
    cr_expect_eq(RUN("spec", text), 0, "%s", operator_error);
    cr_expect_not_null(strstr(operator_out, "blocks.23."), "%s", operator_out);
}
