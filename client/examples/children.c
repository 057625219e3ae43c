/* children — start, wait for and stop a daemon, workers, and programs that draw.
 *
 * Called by cluster.c and drawing.c on the main thread. Children have process groups of
 * their own, so that a Ctrl-C on the terminal reaches the parent alone, which then
 * stops them in order.
 */
#include "children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NOT_FOUND = 127 };

/* In the child, between fork and exec: async-signal-safe calls only. */
static void become(const char *const *argv, int output, int inherited, pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(NOT_FOUND); /* nobody would have us stopped */
    }
    setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (output >= 0) {
        dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
    }
    if (inherited >= 0) {
        fcntl(inherited, F_SETFD, 0);
    }
    /* exec's argument is not const for old times' sake; it changes nothing. */
    execvp(argv[0], (char *const *)(const void *)argv);
    _exit(NOT_FOUND);
}

bool child_start(struct child *child, const char *const *argv, int output,
                 int inherited)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        return false;
    }
    if (pid == 0) {
        become(argv, output, inherited, parent);
    }
    *child = (struct child){ .pid = pid };
    return true;
}

void children_collect(struct child *children, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct child *child = &children[i];
        if (child->pid != 0 &&
            waitpid(child->pid, &child->status, WNOHANG) == child->pid) {
            child->pid = 0;
        }
    }
}

static bool all_ended(const struct child *children, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (children[i].pid != 0) {
            return false;
        }
    }
    return true;
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Wait for one of these blocked signals: which it was, or -1. One that came before this
 * call is still pending. */
static int take_signal(const sigset_t *signals, long long timeout_ms)
{
    struct timespec wait = { .tv_sec = timeout_ms / 1000,
                             .tv_nsec = timeout_ms % 1000 * 1000000 };
    return sigtimedwait(signals, NULL, &wait);
}

bool children_wait(struct child *children, size_t count, int timeout_ms)
{
    long long end = now_ms() + timeout_ms;
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    for (;;) {
        children_collect(children, count);
        if (all_ended(children, count)) {
            return true;
        }
        long long left = end - now_ms();
        if (left <= 0) {
            return false;
        }
        take_signal(&ended, left);
    }
}

enum child_end child_attend(struct child *child, int timeout_ms)
{
    long long end = now_ms() + timeout_ms;
    sigset_t reasons;
    sigemptyset(&reasons);
    sigaddset(&reasons, SIGCHLD);
    sigaddset(&reasons, SIGINT);
    sigaddset(&reasons, SIGTERM);
    sigaddset(&reasons, SIGHUP);
    for (;;) {
        children_collect(child, 1);
        if (child->pid == 0) {
            return CHILD_ENDED;
        }
        long long left = end - now_ms();
        if (left <= 0) {
            return CHILD_LATE;
        }
        int signal = take_signal(&reasons, left);
        if (signal > 0 && signal != SIGCHLD) {
            raise(signal);
            return CHILD_INTERRUPTED;
        }
    }
}

void children_stop(struct child *children, size_t count, int grace_ms)
{
    for (size_t i = 0; i < count; i++) {
        if (children[i].pid != 0) {
            kill(children[i].pid, SIGTERM);
        }
    }
    if (children_wait(children, count, grace_ms)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (children[i].pid != 0) {
            kill(children[i].pid, SIGKILL);
            waitpid(children[i].pid, &children[i].status, 0);
            children[i].pid = 0;
        }
    }
}

bool child_succeeded(const struct child *child)
{
    return child->pid == 0 && WIFEXITED(child->status) &&
           WEXITSTATUS(child->status) == 0;
}

void child_describe(const struct child *child, char *out, size_t capacity)
{
    if (child->pid != 0) {
        snprintf(out, capacity, "runs");
    } else if (WIFSIGNALED(child->status)) {
        snprintf(out, capacity, "was killed by signal %d (%s)", WTERMSIG(child->status),
                 strsignal(WTERMSIG(child->status)));
    } else {
        snprintf(out, capacity, "ended with status %d", WEXITSTATUS(child->status));
    }
}
