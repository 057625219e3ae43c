/* loopback — see loopback.h. */
#include "tests/bench/loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "tests/bench/compare.h"
#include "tests/bench/memory.h"
#include "tests/bench/process.h"

static const int patience_seconds = 30; /* for one read or write */

static void tune(int fd, const char *congestion)
{
    int on = 1;
    struct timeval patience = { .tv_sec = patience_seconds };
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (congestion[0] != '\0') {
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion,
                   (socklen_t)strlen(congestion));
    }
}

/* A listening socket on a free port of the loopback, and where it is. */
static int listen_somewhere(const char *congestion, struct sockaddr_in *place)
{
    socklen_t size = sizeof *place;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *place = (struct sockaddr_in){ .sin_family = AF_INET };
    place->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) {
        return -1;
    }
    tune(fd, congestion); /* accepted sockets inherit it */
    if (bind(fd, (struct sockaddr *)place, size) != 0 || listen(fd, 1) != 0 ||
        getsockname(fd, (struct sockaddr *)place, &size) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int connect_to(const struct sockaddr_in *place, const char *congestion)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    tune(fd, congestion);
    if (connect(fd, (const struct sockaddr *)place, sizeof *place) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

uint16_t loopback_port(void)
{
    struct sockaddr_in place;
    int fd = listen_somewhere("", &place);
    if (fd < 0) {
        return 0;
    }
    close(fd);
    return ntohs(place.sin_port);
}

int loopback_connect(uint16_t port, const char *congestion)
{
    struct sockaddr_in place = { .sin_family = AF_INET, .sin_port = htons(port) };
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect_to(&place, congestion);
}

bool loopback_send(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        size_t piece = size < LOOPBACK_PIECE ? size : LOOPBACK_PIECE;
        ssize_t sent = send(fd, at, piece, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool loopback_receive(int fd, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        size_t piece = size < LOOPBACK_PIECE ? size : LOOPBACK_PIECE;
        ssize_t got = recv(fd, at, piece, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        at += got;
        size -= (size_t)got;
    }
    return true;
}

/* ------------------------------------------------------------- the bare peer */

struct order {
    uint64_t pattern, size, count;
};

static bool regions_init(struct loopback *peer)
{
    peer->from = memory_map(peer->region);
    peer->to = memory_map(peer->region);
    if (peer->from == NULL || peer->to == NULL) {
        return false;
    }
    memset(peer->from, 1, peer->region);
    memset(peer->to, 1, peer->region);
    return true;
}

/* Start of the next message of that size in the regions. */
static size_t next_place(struct loopback *peer, size_t size)
{
    if (peer->at + size > peer->region) {
        peer->at = 0;
    }
    size_t place = peer->at;
    peer->at += size;
    return place;
}

/* One message of an order, seen from the side that gives the orders (up: it sends). */
static bool one_message(struct loopback *side, bool orderer, const struct order *order)
{
    size_t size = (size_t)order->size, place = next_place(side, size);
    char *from = (char *)side->from + place, *to = (char *)side->to + place, token = 1;
    int fd = side->socket;
    switch ((enum loopback_pattern)order->pattern) {
    case LOOPBACK_UP:
        return orderer ? loopback_send(fd, from, size) : loopback_receive(fd, to, size);
    case LOOPBACK_DOWN:
        return orderer ? loopback_receive(fd, to, size) : loopback_send(fd, from, size);
    case LOOPBACK_UP_EACH:
        return orderer
                   ? loopback_send(fd, from, size) && loopback_receive(fd, &token, 1)
                   : loopback_receive(fd, to, size) && loopback_send(fd, &token, 1);
    case LOOPBACK_DOWN_EACH:
        return orderer
                   ? loopback_send(fd, &token, 1) && loopback_receive(fd, to, size)
                   : loopback_receive(fd, &token, 1) && loopback_send(fd, from, size);
    case LOOPBACK_THERE_BACK:
        return orderer
                   ? loopback_send(fd, from, size) && loopback_receive(fd, to, size)
                   : loopback_receive(fd, to, size) && loopback_send(fd, from, size);
    case LOOPBACK_END:
        break;
    }
    return false;
}

/* Carry out an order from either side; a stream up ends with one byte back. */
static bool carry_out(struct loopback *side, bool orderer, const struct order *order)
{
    uint8_t token = 1;
    for (uint64_t i = 0; i < order->count; i++) {
        if (!one_message(side, orderer, order)) {
            return false;
        }
    }
    if (order->pattern != LOOPBACK_UP) {
        return true;
    }
    return orderer ? loopback_receive(side->socket, &token, 1)
                   : loopback_send(side->socket, &token, 1);
}

struct listening {
    int fd;
    const char *congestion;
    size_t region;
};

/* The next order, however long it takes to come. */
static bool next_order(int fd, struct order *order)
{
    struct timeval forever = { 0 }, patience = { .tv_sec = patience_seconds };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof forever);
    bool got = loopback_receive(fd, order, sizeof *order);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return got && order->pattern != LOOPBACK_END;
}

static int bare_peer(void *context)
{
    const struct listening *listening = context;
    struct loopback peer = { .socket = accept(listening->fd, NULL, NULL),
                             .region = listening->region };
    struct order order;
    if (peer.socket < 0 || !regions_init(&peer)) {
        return 1;
    }
    tune(peer.socket, listening->congestion);
    while (next_order(peer.socket, &order)) {
        if (!carry_out(&peer, false, &order)) {
            return 1;
        }
    }
    return 0;
}

/* Fork a peer behind a listening socket and connect to it. */
static int start_peer(int (*body)(void *), const char *congestion, size_t region,
                      pid_t *pid, char problem[256])
{
    struct sockaddr_in place;
    struct listening listening = { listen_somewhere(congestion, &place), congestion,
                                   region };
    *pid = listening.fd < 0 ? -1 : process_fork(body, &listening);
    int fd = *pid > 0 ? connect_to(&place, congestion) : -1;
    if (fd < 0) {
        snprintf(problem, 256, "no peer on the loopback: %s", strerror(errno));
    }
    close(listening.fd);
    return fd;
}

bool loopback_start(struct loopback *loopback, const char *congestion, size_t region,
                    char problem[256])
{
    *loopback = (struct loopback){ .socket = -1, .region = region };
    loopback->socket =
        start_peer(bare_peer, congestion, region, &loopback->pid, problem);
    if (loopback->socket >= 0 && !regions_init(loopback)) {
        snprintf(problem, 256, "no memory for regions of %zu bytes", region);
        return false;
    }
    return loopback->socket >= 0;
}

void loopback_stop(struct loopback *loopback)
{
    process_kill(loopback->pid);
    if (loopback->socket >= 0) {
        close(loopback->socket);
    }
    memory_unmap(loopback->from, loopback->region);
    memory_unmap(loopback->to, loopback->region);
    *loopback = (struct loopback){ .socket = -1 };
}

double loopback_move(struct loopback *loopback, enum loopback_pattern pattern,
                     size_t size, size_t count, char problem[256])
{
    struct order order = { pattern, size, count };
    double begin = seconds_now();
    if (!loopback_send(loopback->socket, &order, sizeof order) ||
        !carry_out(loopback, true, &order)) {
        snprintf(problem, 256, "the bare peer is gone: %s", strerror(errno));
        return -1;
    }
    return seconds_now() - begin;
}

/* ------------------------------------------------------------------ the echo */

struct echo_server {
    uv_tcp_t connection;
    uv_write_t write;
    uv_buf_t waiting;
    char bytes[1 << 16];
};

static void on_space(uv_handle_t *handle, size_t suggested, uv_buf_t *space)
{
    struct echo_server *server = handle->data;
    (void)suggested;
    *space = uv_buf_init(server->bytes, sizeof server->bytes);
}

static void on_bytes(uv_stream_t *stream, ssize_t size, const uv_buf_t *space);

static void on_written(uv_write_t *request, int status)
{
    struct echo_server *server = request->data;
    if (status != 0 ||
        uv_read_start((uv_stream_t *)&server->connection, on_space, on_bytes) != 0) {
        uv_stop(server->connection.loop);
    }
}

/* Give everything back at once; what the socket does not take waits, and reading with
 * it. */
static void on_bytes(uv_stream_t *stream, ssize_t size, const uv_buf_t *space)
{
    struct echo_server *server = stream->data;
    if (size < 0) {
        uv_stop(stream->loop);
        return;
    }
    uv_buf_t answer = uv_buf_init(space->base, (unsigned)size);
    int sent = size == 0 ? 0 : uv_try_write(stream, &answer, 1);
    sent = sent < 0 ? 0 : sent;
    if (sent < size) {
        server->waiting = uv_buf_init(space->base + sent, (unsigned)(size - sent));
        uv_read_stop(stream);
        uv_write(&server->write, stream, &server->waiting, 1, on_written);
    }
}

static int echo_peer(void *context)
{
    const struct listening *listening = context;
    static struct echo_server server;
    uv_loop_t loop;
    int fd = accept(listening->fd, NULL, NULL);
    if (fd < 0) {
        return 1;
    }
    tune(fd, listening->congestion);
    server.connection.data = &server;
    server.write.data = &server;
    if (uv_loop_init(&loop) != 0 || uv_tcp_init(&loop, &server.connection) != 0 ||
        uv_tcp_open(&server.connection, fd) != 0 ||
        uv_read_start((uv_stream_t *)&server.connection, on_space, on_bytes) != 0) {
        return 1;
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    return 0;
}

bool echo_start(struct echo *echo, const char *congestion, char problem[256])
{
    echo->socket = start_peer(echo_peer, congestion, 0, &echo->pid, problem);
    return echo->socket >= 0;
}

void echo_stop(struct echo *echo)
{
    process_kill(echo->pid);
    if (echo->socket >= 0) {
        close(echo->socket);
    }
    *echo = (struct echo){ .socket = -1 };
}
