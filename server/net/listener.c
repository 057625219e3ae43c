/* listener — see listener.h. */
#define _GNU_SOURCE /* accept4 */
#include "server/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "server/base/counters.h"
#include "server/net/loop.h"
#include "server/net/socket.h"

enum {
    BACKLOG = 1024,
    ACCEPTS_AT_ONCE = 64, /* then signals get their turn */
    REFUSALS_MAX = 32     /* sockets kept until they have read that no */
};

/* ------------------------------------------------------------------- the port */

static int spare_descriptor(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* The file of a Unix socket that a daemon has left behind, and nothing else, may be
 * removed: it is a socket, and nobody answers. */
static bool remove_stale(const struct sockaddr_un *address)
{
    struct stat file;
    if (lstat(address->sun_path, &file) != 0 || !S_ISSOCK(file.st_mode)) {
        return false;
    }
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0) {
        return false;
    }
    bool stale =
        connect(probe, (const struct sockaddr *)address, sizeof(*address)) != 0 &&
        errno == ECONNREFUSED;
    close(probe);
    return stale && unlink(address->sun_path) == 0;
}

/* Whoever may write to its file may connect. */
static bool bind_path(struct listener *listener, int fd,
                      const struct listen_address *where)
{
    struct sockaddr_un address;
    memcpy(&address, &where->address, sizeof(address));
    const mode_t mode = where->mode != 0 ? where->mode : 0660;
    mode_t before = umask(~mode & 0777);
    bool bound = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (!bound && errno == EADDRINUSE) {
        bound = remove_stale(&address) &&
                bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        errno = bound ? 0 : EADDRINUSE;
    }
    umask(before);
    struct stat file;
    if (bound && lstat(address.sun_path, &file) == 0) {
        memcpy(listener->path, address.sun_path, sizeof(listener->path));
        listener->device = file.st_dev;
        listener->inode = file.st_ino;
    }
    return bound;
}

static bool bind_port(int fd, const struct listen_address *where)
{
    int yes = 1;
    if (where->six_only &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes)) != 0) {
        return false;
    }
    return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
           bind(fd, (const struct sockaddr *)&where->address, where->size) == 0;
}

/* Remove the file, unless it is somebody else's by now. */
static void remove_path(const struct listener *listener)
{
    struct stat file;
    if (listener->path[0] != '\0' && lstat(listener->path, &file) == 0 &&
        file.st_dev == listener->device && file.st_ino == listener->inode) {
        unlink(listener->path);
    }
}

enum opt_status listener_open(struct listener *listener,
                              const struct listen_address *where,
                              const char *congestion, struct opt_error *error)
{
    *listener = (struct listener){ .socket = -1, .spare = spare_descriptor() };
    const struct sockaddr *wanted = (const struct sockaddr *)&where->address;
    bool is_path = wanted->sa_family == AF_UNIX;
    int fd = socket(wanted->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_storage actual;
    socklen_t size = sizeof(actual);
    if (fd >= 0) {
        socket_prepare(fd, wanted, congestion);
    }
    if (fd < 0 || !(is_path ? bind_path(listener, fd, where) : bind_port(fd, where)) ||
        listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&actual, &size) != 0) {
        int code = errno;
        char name[sizeof(listener->name)];
        opt_socket_name(wanted, name, sizeof(name));
        remove_path(listener);
        if (fd >= 0) {
            close(fd);
        }
        close(listener->spare);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot listen on %s: %s", name,
                        strerror(code));
    }
    listener->socket = fd;
    opt_socket_name((struct sockaddr *)&actual, listener->name, sizeof(listener->name));
    if (!is_path) {
        listener->port = (uint16_t)strtoul(strrchr(listener->name, ':') + 1, NULL, 10);
    }
    return OPT_OK;
}

/* Say no, where that can be said without TLS, and close. */
static void refuse(const struct listener *listener, int socket)
{
    if (listener->port != 0 && listener->loops->limits.credentials != NULL) {
        close(socket);
    } else {
        refusal_say(&listener->refusal, socket);
    }
}

static void deal(struct listener *listener, int socket)
{
    static struct opt_log_site site;
    struct loops *loops = listener->loops;
    if (atomic_load(&loops->connections) < loops->limits.connections) {
        loops_deal(loops, socket, false);
        return;
    }
    counter_add(COUNTER_CONNECTIONS_REFUSED, 1);
    opt_log_limited(&site, OPT_LOG_WARN, "connection_limit_reached", "limit=%zu",
                    loops->limits.connections);
    if (atomic_load(&loops->refusals) < REFUSALS_MAX) {
        loops_deal(loops, socket, true);
    } else {
        refuse(listener, socket);
    }
}

/* No descriptor is left: use the spare one to take the connection and refuse it, else
 * it would be reported again and again. */
static void refuse_one(struct listener *listener)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_ERROR, "no_descriptors", "why=\"%s\"",
                    "a connection was refused; raise the limit of open files");
    counter_add(COUNTER_CONNECTIONS_REFUSED, 1);
    close(listener->spare);
    int socket = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket >= 0) {
        refuse(listener, socket);
    }
    listener->spare = spare_descriptor();
}

static void on_connections(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct listener *listener = poll->data;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int socket =
            accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (socket >= 0) {
            deal(listener, socket);
        } else if (errno == EMFILE || errno == ENFILE) {
            refuse_one(listener);
            return;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        }
        /* Anything else concerns one connection that broke before it was accepted. */
    }
}

enum opt_status listener_start(struct listener *listener, uv_loop_t *loop,
                               struct loops *loops, struct opt_error *error)
{
    listener->loops = loops;
    refusal_init(&listener->refusal, loops->limits.connections);
    int code = uv_poll_init(loop, &listener->poll, listener->socket);
    if (code == 0) {
        listener->poll.data = listener;
        code = uv_poll_start(&listener->poll, UV_READABLE, on_connections);
    }
    if (code != 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "cannot watch %s: %s", listener->name,
                        uv_strerror(code));
    }
    return OPT_OK;
}

void listener_close(struct listener *listener)
{
    if (listener->loops != NULL) {
        uv_poll_stop(&listener->poll);
        uv_close((uv_handle_t *)&listener->poll, NULL);
    }
    remove_path(listener);
    close(listener->socket);
    close(listener->spare);
}
