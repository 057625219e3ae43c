/* daemon — see daemon.h. Waiting is for events: inotify for files, a pidfd for the end.
 */
#define _GNU_SOURCE /* pipe2 */
#include "tests/support/daemon.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OPTIONS_MAX = 64 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* build/tests/end_to_end/test_x -> build/optimd, also in a build of its own. */
static void find_program(char out[PATH_MAX])
{
    const char *named = getenv("OPTIMD_DAEMON");
    if (named != NULL) {
        snprintf(out, PATH_MAX, "%s", named);
        return;
    }
    ssize_t size = readlink("/proc/self/exe", out, PATH_MAX - 1);
    cr_assert_gt(size, 0, "cannot find this program: %s", strerror(errno));
    out[size] = '\0';
    char *tests = strstr(out, "/tests/");
    cr_assert_not_null(tests, "%s is not below a folder of tests", out);
    for (char *next = tests; next != NULL; next = strstr(next + 1, "/tests/")) {
        tests = next;
    }
    memcpy(tests, "/optimd", sizeof("/optimd"));
    cr_assert_eq(access(out, X_OK), 0, "%s cannot be run: %s", out, strerror(errno));
}

static void redirect(const char *path, int descriptor)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || dup2(file, descriptor) < 0) {
        _exit(126);
    }
    close(file);
}

static void (*prepare_)(void);

void daemon_prepare(void (*prepare)(void))
{
    prepare_ = prepare;
}

void daemon_spawn(struct daemon_process *daemon, const char *const *options)
{
    char program[PATH_MAX];
    find_program(program);
    const char *arguments[OPTIONS_MAX + 2] = { program };
    for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
        cr_assert_lt(i, (size_t)OPTIONS_MAX);
        arguments[i + 1] = options[i];
    }
    if (daemon->directory[0] == '\0') {
        snprintf(daemon->directory, sizeof(daemon->directory),
                 "/tmp/optimd-test-XXXXXX");
        cr_assert_not_null(mkdtemp(daemon->directory));
    }
    snprintf(daemon->log, sizeof(daemon->log), "%s/log", daemon->directory);
    snprintf(daemon->out, sizeof(daemon->out), "%s/out", daemon->directory);
    pid_t parent = getpid();
    fflush(NULL);
    daemon->pid = fork();
    cr_assert_geq(daemon->pid, 0, "fork: %s", strerror(errno));
    if (daemon->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(126);
        }
        redirect("/dev/null", STDIN_FILENO);
        redirect(daemon->out, STDOUT_FILENO);
        redirect(daemon->log, STDERR_FILENO);
        if (prepare_ != NULL) {
            prepare_();
        }
        execv(program, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
}

/* The one that was started last. */
static struct {
    uint16_t port;
    char path[DAEMON_PATH + 16];
} last;

static bool transport_is(const char *name)
{
    const char *transport = getenv("OPTIMD_TRANSPORT");
    return transport != NULL && strcmp(transport, name) == 0;
}

const char *const *daemon_transport_options(void)
{
    static const char *options[8];
    static char cert[PATH_MAX], key[PATH_MAX], ca[PATH_MAX];
    const char *folder = getenv("OPTIMD_TEST_CERTIFICATES");
    memset(options, 0, sizeof(options));
    if (transport_is("unix")) {
        options[0] = "--no-shared-memory";
    } else if (transport_is("tls")) {
        cr_assert_not_null(folder, "OPTIMD_TEST_CERTIFICATES is not set");
        snprintf(cert, sizeof(cert), "%s/localhost.crt", folder);
        snprintf(key, sizeof(key), "%s/localhost.key", folder);
        snprintf(ca, sizeof(ca), "%s/ca.crt", folder);
        memcpy(options,
               (const char *const[]){ "--tls-cert", cert, "--tls-key", key,
                                      "--tls-client-ca", ca },
               6 * sizeof(options[0]));
    }
    return options;
}

const char *daemon_socket(uint16_t port)
{
    bool wanted = transport_is("unix") || transport_is("shared") || transport_is("tls");
    return wanted && port == last.port ? last.path : NULL;
}

/* How clients are to reach it. */
static void find_address(struct daemon_process *daemon)
{
    last.port = daemon->port;
    snprintf(last.path, sizeof(last.path), "%s/socket", daemon->directory);
    if (daemon_socket(daemon->port) != NULL && !transport_is("tls")) {
        snprintf(daemon->address, sizeof(daemon->address), "unix:%s/socket",
                 daemon->directory);
    } else {
        snprintf(daemon->address, sizeof(daemon->address), "127.0.0.1:%u",
                 (unsigned)daemon->port);
    }
}

static uint16_t read_port(const char *path)
{
    char text[16] = "";
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(text, sizeof(text), file) == NULL) {
            text[0] = '\0';
        }
        fclose(file);
    }
    return (uint16_t)strtoul(text, NULL, 10);
}

/* Wait for either descriptor to become readable; false when the time is over. */
static bool wait_either(int first, int second, int64_t deadline)
{
    struct pollfd wait[2] = { { .fd = first, .events = POLLIN },
                              { .fd = second, .events = POLLIN } };
    int64_t left = deadline - now_ms();
    return left > 0 && poll(wait, 2, (int)left) > 0;
}

static int open_process(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Forget what has been reported; it only means "look again". */
static void drain(int notify)
{
    char events[4096];
    while (read(notify, events, sizeof(events)) > 0) {
    }
}

static int watch(const char *path, uint32_t events)
{
    int notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    cr_assert_geq(notify, 0);
    cr_assert_geq(inotify_add_watch(notify, path, events), 0, "%s: %s", path,
                  strerror(errno));
    return notify;
}

void daemon_start(struct daemon_process *daemon, const char *const *options)
{
    *daemon = (struct daemon_process){ .pid = 0 };
    snprintf(daemon->directory, sizeof(daemon->directory), "/tmp/optimd-test-XXXXXX");
    cr_assert_not_null(mkdtemp(daemon->directory));
    char port_file[DAEMON_PATH + 16], listen[DAEMON_PATH + 32];
    snprintf(port_file, sizeof(port_file), "%s/port", daemon->directory);
    snprintf(listen, sizeof(listen), "127.0.0.1:0,unix:%s/socket", daemon->directory);
    const char *all[OPTIONS_MAX] = { "--listen", listen, "--port-file", port_file };
    for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
        cr_assert_lt(i + 5, (size_t)OPTIONS_MAX);
        all[i + 4] = options[i];
    }
    size_t count = 4;
    while (all[count] != NULL) {
        count++;
    }
    const char *const *transport = daemon_transport_options();
    for (size_t i = 0; transport[i] != NULL; i++) {
        cr_assert_lt(count + 1, (size_t)OPTIONS_MAX);
        all[count++] = transport[i];
    }
    int notify = watch(daemon->directory, IN_MOVED_TO);
    daemon_spawn(daemon, all);
    int process = open_process(daemon->pid);
    int64_t deadline = now_ms() + DAEMON_WAIT_MS;
    while ((daemon->port = read_port(port_file)) == 0 && daemon_alive(daemon) &&
           wait_either(notify, process, deadline)) {
        drain(notify);
    }
    close(notify);
    close(process);
    if (daemon->port == 0) {
        char *log = daemon_log(daemon);
        cr_assert_fail("optimd did not start: %s", log);
    }
    find_address(daemon);
}

int daemon_wait(struct daemon_process *daemon, int timeout_ms)
{
    int process = open_process(daemon->pid);
    cr_assert_geq(process, 0, "pidfd_open: %s", strerror(errno));
    struct pollfd wait = { .fd = process, .events = POLLIN };
    int ended = poll(&wait, 1, timeout_ms);
    close(process);
    if (ended <= 0) {
        return -1;
    }
    int status = 0;
    cr_assert_eq(waitpid(daemon->pid, &status, 0), daemon->pid);
    daemon->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void daemon_signal(const struct daemon_process *daemon, int number)
{
    cr_assert_gt(daemon->pid, 0, "the daemon has ended");
    cr_assert_eq(kill(daemon->pid, number), 0);
    if (number == SIGSTOP) {
        siginfo_t info;
        cr_assert_eq(waitid(P_PID, (id_t)daemon->pid, &info, WSTOPPED | WNOWAIT), 0);
    }
}

bool daemon_alive(const struct daemon_process *daemon)
{
    siginfo_t info = { .si_pid = 0 };
    return daemon->pid > 0 &&
           waitid(P_PID, (id_t)daemon->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

void daemon_remove(struct daemon_process *daemon)
{
    if (daemon->pid > 0) {
        kill(daemon->pid, SIGKILL);
        waitpid(daemon->pid, NULL, 0);
        daemon->pid = 0;
    }
    DIR *directory = daemon->directory[0] != '\0' ? opendir(daemon->directory) : NULL;
    if (directory == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(directory); entry != NULL;
         entry = readdir(directory)) {
        unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
    rmdir(daemon->directory);
    daemon->directory[0] = '\0';
}

void daemon_stop(struct daemon_process *daemon)
{
    daemon_signal(daemon, SIGTERM);
    int code = daemon_wait(daemon, DAEMON_WAIT_MS + 2000);
    char *log = daemon_log(daemon);
    cr_assert_eq(code, 0, "optimd ended with %d: %s", code, log);
    free(log);
    daemon_remove(daemon);
}

static char *read_all(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    cr_assert_not_null(memory);
    for (int c = file != NULL ? fgetc(file) : EOF; c != EOF; c = fgetc(file)) {
        fputc(c, memory);
    }
    fclose(memory);
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

char *daemon_log(const struct daemon_process *daemon)
{
    return read_all(daemon->log);
}

char *daemon_output(const struct daemon_process *daemon)
{
    return read_all(daemon->out);
}

bool daemon_logged(const struct daemon_process *daemon, const char *text,
                   int timeout_ms)
{
    int notify = watch(daemon->log, IN_MODIFY);
    int process = open_process(daemon->pid);
    int64_t deadline = now_ms() + timeout_ms;
    bool found = false;
    for (;;) {
        char *log = daemon_log(daemon);
        found = strstr(log, text) != NULL;
        free(log);
        if (found || !daemon_alive(daemon) || !wait_either(notify, process, deadline)) {
            break;
        }
        drain(notify);
    }
    close(notify);
    close(process);
    return found;
}

size_t daemon_memory(const struct daemon_process *daemon)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%ld/statm", (long)daemon->pid);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s: %s", path, strerror(errno));
    char text[128];
    cr_assert_not_null(fgets(text, sizeof(text), file));
    fclose(file);
    char *resident = strchr(text, ' '); /* the second number, in pages */
    cr_assert_not_null(resident);
    unsigned long pages = strtoul(resident, NULL, 10);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}
