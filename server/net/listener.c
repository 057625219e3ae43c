/* listener — see listener.h. */
#define _GNU_SOURCE /* accept4 */
#include "server/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/quantity.h"
#include "server/net/counters.h"
#include "server/net/loop.h"
#include "server/net/socket.h"

enum {
    BACKLOG = 1024,
    ACCEPTS_AT_ONCE = 64, /* then signals get their turn */
    REFUSALS_MAX = 32     /* sockets spent on saying no at a time */
};

/* ----------------------------------------------------------------- addresses */

/* Cut text into host and port. */
static enum opt_status split(const char *text, char *host, size_t host_size, char *port,
                             size_t port_size, struct opt_error *error)
{
    const char *colon = strrchr(text, ':');
    const char *begin = text;
    const char *end = colon;
    if (colon != NULL && text[0] == '[' && colon > text && colon[-1] == ']') {
        begin = text + 1;
        end = colon - 1;
    } else if (colon == NULL || memchr(text, ':', (size_t)(colon - text)) != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not an address and a port; right would be "
                        "127.0.0.1:7070 or [::1]:7070",
                        text);
    }
    size_t host_length = (size_t)(end - begin);
    size_t port_length = strlen(colon + 1);
    if (host_length == 0 || host_length >= host_size || port_length == 0 ||
        port_length >= port_size) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" lacks an address or a port; right would be "
                        "127.0.0.1:7070",
                        text);
    }
    memcpy(host, begin, host_length);
    host[host_length] = '\0';
    memcpy(port, colon + 1, port_length + 1);
    return OPT_OK;
}

enum opt_status endpoint_parse(const char *text, struct endpoint *out,
                               struct opt_error *error)
{
    char host[NI_MAXHOST];
    char port[8];
    enum opt_status status = split(text, host, sizeof(host), port, sizeof(port), error);
    if (status != OPT_OK) {
        return status;
    }
    uint64_t number = 0;
    if (opt_quantity_count(port, &number, NULL) != OPT_OK || number > UINT16_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not a port; right would be 0 to 65535", port);
    }
    const struct addrinfo hints = { .ai_flags = AI_NUMERICSERV | AI_PASSIVE,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not an address of this machine: %s", host,
                        gai_strerror(code));
    }
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->size = found->ai_addrlen;
    freeaddrinfo(found);
    return OPT_OK;
}

/* ------------------------------------------------------------------- the port */

static int spare_descriptor(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

enum opt_status listener_open(struct listener *listener,
                              const struct endpoint *endpoint, struct opt_error *error)
{
    *listener = (struct listener){ .socket = -1, .spare = spare_descriptor() };
    const struct sockaddr *wanted = (const struct sockaddr *)&endpoint->address;
    char name[sizeof(listener->name)];
    socket_name(wanted, name, sizeof(name));
    int yes = 1;
    int fd = socket(wanted->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_storage actual;
    socklen_t size = sizeof(actual);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
        bind(fd, wanted, endpoint->size) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&actual, &size) != 0) {
        int code = errno;
        if (fd >= 0) {
            close(fd);
        }
        close(listener->spare);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot listen on %s: %s", name,
                        strerror(code));
    }
    listener->socket = fd;
    socket_name((struct sockaddr *)&actual, listener->name, sizeof(listener->name));
    listener->port = (uint16_t)strtoul(strrchr(listener->name, ':') + 1, NULL, 10);
    return OPT_OK;
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
        close(socket);
    }
}

/* No descriptor is left: use the spare one to take the connection and drop it, else it
 * would be reported again and again. */
static void drop_one(struct listener *listener)
{
    static struct opt_log_site site;
    opt_log_limited(&site, OPT_LOG_ERROR, "no_descriptors", "why=\"%s\"",
                    "a connection was dropped; raise the limit of open files");
    counter_add(COUNTER_CONNECTIONS_REFUSED, 1);
    close(listener->spare);
    int socket = accept(listener->socket, NULL, NULL);
    if (socket >= 0) {
        close(socket);
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
            drop_one(listener);
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
    close(listener->socket);
    close(listener->spare);
}
