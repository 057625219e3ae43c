/* process — see process.h. The daemon says that it listens by renaming its port file
 * into place, and that event in the folder is what is waited for. */
#define _GNU_SOURCE /* nftw, close_range */

#include "tests/bench/process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/clock.h"

static const double start_seconds = 20, stop_seconds = 20;

/* A child that dies with its parent; 0 in the child, which has none already if the
 * parent died in between. */
static pid_t fork_bound(void)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
    }
    return pid;
}

pid_t process_fork(int (*body)(void *context), void *context)
{
    fflush(NULL);
    pid_t pid = fork_bound();
    if (pid == 0) {
        _exit(body(context));
    }
    return pid;
}

void process_kill(pid_t pid)
{
    if (pid > 0) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}

static int remove_entry(const char *path, const struct stat *status, int type,
                        struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

/* The port in the file, or 0 as long as there is none. */
static unsigned long port_in(const char *path)
{
    char text[16] = "";
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    bool read = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    return read ? strtoul(text, NULL, 10) : 0;
}

/* Wait for an event in the watched folder, or for a while: the daemon may have died. */
static void await_event(int watch)
{
    struct pollfd ready = { .fd = watch, .events = POLLIN };
    char events[4096];
    if (poll(&ready, 1, 200) > 0 && read(watch, events, sizeof events) < 0) {
        return;
    }
}

static unsigned long await_port(struct server *server, int watch, const char *path)
{
    double begin = seconds_now();
    unsigned long port = port_in(path);
    while (port == 0 && seconds_now() - begin < start_seconds) {
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
            server->pid = 0;
            return 0;
        }
        await_event(watch);
        port = port_in(path);
    }
    return port;
}

/* ---------------------------------------------------------------- the log */

static FILE *log_of(const struct server *server)
{
    char path[128];
    snprintf(path, sizeof path, "%s/log", server->folder);
    return fopen(path, "re");
}

/* In the child: what it writes to stderr goes to the log. */
static void divert(const struct server *server)
{
    char path[128];
    snprintf(path, sizeof path, "%s/log", server->folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        dup2(fd, STDERR_FILENO);
    }
}

static void show_log(const struct server *server)
{
    char line[512];
    FILE *log = log_of(server);
    while (log != NULL && fgets(line, sizeof line, log) != NULL) {
        fputs(line, stderr);
    }
    if (log != NULL) {
        fclose(log);
    }
}

size_t server_logged(const struct server *server, const char *word)
{
    char line[512];
    size_t count = 0;
    FILE *log = log_of(server);
    while (log != NULL && fgets(line, sizeof line, log) != NULL) {
        count += strstr(line, word) != NULL;
    }
    if (log != NULL) {
        fclose(log);
    }
    return count;
}

/* ---------------------------------------------------------------- the daemon */

/* In the child. */
static void run_daemon(const char *program, const char *const *first,
                       const char *const *second)
{
    enum { MOST = 32 };
    const char *arguments[MOST] = { program };
    size_t count = 1;
    for (; *first != NULL && count < MOST - 1; first++) {
        arguments[count++] = *first;
    }
    for (; *second != NULL && count < MOST - 1; second++) {
        arguments[count++] = *second;
    }
    /* What is meant for other children is none of its business. */
    (void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    execv(program, (char *const *)arguments);
    _exit(127);
}

/* Start it in its folder, at this port of the loopback, 0: any; wait until it listens.
 */
static bool launch(struct server *server, const char *program,
                   const char *const *settings, char problem[256])
{
    char path[128], listen[128], memory[32];
    snprintf(path, sizeof path, "%s/port", server->folder);
    snprintf(listen, sizeof listen, "127.0.0.1:%u,unix:%s/socket",
             (unsigned)server->port, server->folder);
    snprintf(memory, sizeof memory, "%lluB",
             (unsigned long long)sysconf(_SC_PHYS_PAGES) / 4 * 3 *
                 (unsigned long long)sysconf(_SC_PAGESIZE));
    int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 ||
        inotify_add_watch(watch, server->folder, IN_MOVED_TO | IN_CLOSE_WRITE) < 0) {
        snprintf(problem, 256, "cannot watch %s: %s", server->folder, strerror(errno));
        close(watch);
        return false;
    }
    const char *transport = getenv("OPTIMD_TRANSPORT");
    bool is_sent = transport == NULL || strcmp(transport, "shared") != 0;
    bool is_unix = transport != NULL && (!is_sent || strcmp(transport, "unix") == 0);
    const char *certificates = transport != NULL && strcmp(transport, "tls") == 0
                                   ? getenv("OPTIMD_TEST_CERTIFICATES")
                                   : NULL;
    char cert[300], key[300], ca[300];
    snprintf(cert, sizeof cert, "--tls-cert=%.250s/localhost.crt",
             certificates != NULL ? certificates : "");
    snprintf(key, sizeof key, "--tls-key=%.250s/localhost.key",
             certificates != NULL ? certificates : "");
    snprintf(ca, sizeof ca, "--tls-client-ca=%.250s/ca.crt",
             certificates != NULL ? certificates : "");
    fflush(NULL);
    server->pid = fork_bound();
    if (server->pid == 0) {
        divert(server);
        run_daemon(program,
                   (const char *const[]){ "--listen", listen, "--port-file", path,
                                          "--memory", memory, "--log-level", "warn",
                                          is_unix && is_sent     ? "--no-shared-memory"
                                          : certificates != NULL ? cert
                                                                 : NULL,
                                          certificates != NULL ? key : NULL, ca, NULL },
                   settings);
    }
    unsigned long port = server->pid > 0 ? await_port(server, watch, path) : 0;
    close(watch);
    if (port == 0) {
        show_log(server);
        snprintf(problem, 256, "%s did not start to listen", program);
        return false;
    }
    server->port = (uint16_t)port;
    if (is_unix) {
        snprintf(server->address, sizeof server->address, "unix:%s/socket",
                 server->folder);
    } else {
        snprintf(server->address, sizeof server->address, "127.0.0.1:%lu", port);
    }
    return true;
}

bool server_folder(struct server *server, char problem[256])
{
    *server = (struct server){ .folder = "/tmp/optimd-bench-XXXXXX" };
    if (mkdtemp(server->folder) == NULL) {
        snprintf(problem, 256, "cannot make a folder: %s", strerror(errno));
        server->folder[0] = '\0';
        return false;
    }
    return true;
}

bool server_start_in(struct server *server, const char *program,
                     const char *const *settings, char problem[256])
{
    return launch(server, program, settings, problem);
}

bool server_start_with(struct server *server, const char *program,
                       const char *const *settings, char problem[256])
{
    return server_folder(server, problem) && launch(server, program, settings, problem);
}

bool server_start(struct server *server, const char *program, char problem[256])
{
    return server_start_with(server, program, (const char *const[]){ NULL }, problem);
}

bool server_kill(struct server *server, const char *program,
                 const char *const *settings, char problem[256])
{
    char path[128];
    process_kill(server->pid);
    snprintf(path, sizeof path, "%s/port", server->folder);
    (void)unlink(path);
    return launch(server, program, settings, problem);
}

/* The congestion control of this process's socket that is connected to a port. */
static bool congestion_towards(unsigned long port, char name[16])
{
    for (int fd = 0; fd < 1024; fd++) {
        struct sockaddr_in peer = { 0 };
        socklen_t size = sizeof peer, length = 16;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
            peer.sin_family == AF_INET && ntohs(peer.sin_port) == port) {
            memset(name, 0, 16);
            return getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0;
        }
    }
    return false;
}

bool server_congestion(const struct server *server, char name[16], char problem[256])
{
    struct optclient *client;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)server->port);
    if (optclient_connect(address, NULL, &client) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
        return false;
    }
    bool found = congestion_towards(server->port, name);
    optclient_close(client);
    if (!found) {
        snprintf(problem, 256, "the client has no socket to %s", address);
    }
    return found;
}

/* Reap within the limit; false if it was still alive and had to be killed. */
static bool reap(pid_t pid, double limit, int *status)
{
    sigset_t child;
    struct timespec moment = { 0, 100 * 1000 * 1000 };
    double begin = seconds_now();
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    kill(pid, SIGTERM);
    while (waitpid(pid, status, WNOHANG) != pid) {
        if (seconds_now() - begin > limit) {
            process_kill(pid);
            return false;
        }
        sigtimedwait(&child, NULL, &moment);
    }
    return true;
}

bool server_stop(struct server *server)
{
    int status = -1;
    bool stopped = server->pid <= 0 || (reap(server->pid, stop_seconds, &status) &&
                                        WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (!stopped) {
        show_log(server);
    }
    if (server->folder[0] != '\0') {
        nftw(server->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    }
    *server = (struct server){ 0 };
    return stopped;
}

double server_processor_seconds(const struct server *server)
{
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(server->pid, &clock) != 0 ||
        clock_gettime(clock, &time) != 0) {
        return 0;
    }
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

size_t server_peak_bytes(const struct server *server)
{
    char path[64], line[256];
    size_t kilobytes = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)server->pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kilobytes = strtoull(line + 6, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kilobytes * 1024;
}
