/* proxy — see proxy.h. */
#define _GNU_SOURCE /* accept4 */
#include "tests/support/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    LINKS = 64,
    CHUNK = 64 << 10,
    WAYS = 2,
    TICK_MS = 20,
    KERNEL_BUFFER = 128 << 10
};

/* One connection through the proxy. What comes in at ends[way] goes out at the other.
 */
struct link {
    int ends[WAYS]; /* the client's, the daemon's; -1: not in use */
    struct lane *lanes[WAYS];
    bool ended[WAYS];  /* nothing more will come in */
    bool closed[WAYS]; /* and the other end has been told so */
};

struct proxy {
    int fd;
    uint16_t target;
    char address[32];
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest */
    bool stopping;
    bool hold;
    struct lane_faults faults[WAYS];
    uint64_t random;
    uint64_t bytes[WAYS];
    uint64_t cut_at[WAYS];   /* 0: never */
    uint64_t cut_mean[WAYS]; /* 0: not often */
    unsigned connections, cuts, tampered;
    struct link links[LINKS];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool in_use(const struct link *link)
{
    return link->ends[0] >= 0;
}

static void link_close(struct link *link, bool abruptly)
{
    struct linger linger = { .l_onoff = abruptly, .l_linger = 0 };
    for (int way = 0; way < WAYS; way++) {
        if (abruptly) {
            setsockopt(link->ends[way], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        }
        close(link->ends[way]);
        lane_free(link->lanes[way]);
    }
    *link = (struct link){ .ends = { -1, -1 } };
}

static void tune(int fd)
{
    int on = 1;
    int buffer =
        KERNEL_BUFFER; /* what has passed has nearly arrived, even if it is cut */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void accept_one(struct proxy *proxy)
{
    int client = accept4(proxy->fd, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(proxy->target),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int daemon = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(daemon, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(client);
        close(daemon);
        return;
    }
    tune(client);
    tune(daemon);
    proxy->connections++;
    for (size_t i = 0; i < LINKS; i++) {
        if (!in_use(&proxy->links[i])) {
            proxy->links[i] = (struct link){ .ends = { client, daemon },
                                             .lanes = { lane_new(), lane_new() } };
            return;
        }
    }
    abort();
}

/* Take in what has come at one end. False: the connection is broken. */
static bool take_in(struct proxy *proxy, struct link *link, int way)
{
    uint8_t bytes[CHUNK];
    ssize_t received = recv(link->ends[way], bytes, sizeof(bytes), MSG_DONTWAIT);
    if (received < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    if (received == 0) {
        link->ended[way] = true;
        lane_finish(link->lanes[way]);
        return true;
    }
    proxy->tampered += lane_put(link->lanes[way], &proxy->faults[way], &proxy->random,
                                bytes, (size_t)received, now_ns());
    return true;
}

/* The next cut of many. */
static void plan_cut(struct proxy *proxy)
{
    for (int way = 0; way < WAYS; way++) {
        uint64_t mean = proxy->cut_mean[way];
        proxy->cut_at[way] =
            mean == 0 ? 0
                      : proxy->bytes[way] + 1 + lane_random(&proxy->random, 2 * mean);
    }
}

/* Pass on what is due one way. False: the connection is over. */
static bool pass_on(struct proxy *proxy, struct link *link, int way)
{
    struct lane *lane = link->lanes[way];
    const uint8_t *bytes;
    size_t size;
    while ((size = lane_due(lane, &proxy->faults[way], now_ns(), &bytes)) > 0) {
        uint64_t left = proxy->cut_at[way] - proxy->bytes[way];
        bool last = proxy->cut_at[way] != 0 && left <= size;
        ssize_t sent = send(link->ends[1 - way], bytes, last ? (size_t)left : size,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        lane_taken(lane, (size_t)sent);
        proxy->bytes[way] += (uint64_t)sent;
        if (proxy->cut_at[way] != 0 && proxy->bytes[way] >= proxy->cut_at[way]) {
            proxy->cuts++;
            plan_cut(proxy);
            return false;
        }
    }
    if (link->ended[way] && !link->closed[way] && lane_empty(lane)) {
        shutdown(link->ends[1 - way], SHUT_WR);
        link->closed[way] = true;
    }
    return true;
}

static void serve_link(struct proxy *proxy, struct link *link,
                       const struct pollfd polled[WAYS])
{
    for (int way = 0; way < WAYS; way++) {
        bool ready = (polled[way].revents & (POLLIN | POLLHUP | POLLERR)) != 0;
        if (ready && !link->ended[way] &&
            lane_open(link->lanes[way], &proxy->faults[way]) &&
            !take_in(proxy, link, way)) {
            link_close(link, true);
            return;
        }
    }
    for (int way = 0; way < WAYS; way++) {
        if (!pass_on(proxy, link, way)) {
            link_close(link, true);
            return;
        }
    }
    if (link->closed[PROXY_UP] && link->closed[PROXY_DOWN]) {
        link_close(link, false);
    }
}

/* What to wait for at both ends of a connection. Returns when something is due. */
static uint64_t watch(const struct proxy *proxy, const struct link *link, uint64_t now,
                      struct pollfd polled[WAYS])
{
    uint64_t when = UINT64_MAX;
    for (int way = 0; way < WAYS; way++) {
        polled[way] = (struct pollfd){ .fd = link->ends[way] };
    }
    for (int way = 0; way < WAYS; way++) {
        uint64_t due = lane_when(link->lanes[way], &proxy->faults[way]);
        if (!link->ended[way] && lane_open(link->lanes[way], &proxy->faults[way])) {
            polled[way].events |= POLLIN;
        }
        if (due <= now) {
            polled[1 - way].events |= POLLOUT;
        } else if (due < when) {
            when = due;
        }
    }
    for (int way = 0; way < WAYS; way++) {
        if (polled[way].events == 0) {
            polled[way].fd = -1; /* an end that has hung up would wake us for ever */
        }
    }
    return when;
}

static void *proxy_thread(void *argument)
{
    struct proxy *proxy = argument;
    for (;;) {
        struct pollfd polled[1 + WAYS * LINKS];
        struct link *links[LINKS];
        size_t count = 0;
        uint64_t now = now_ns(), when = now + (uint64_t)TICK_MS * 1000000;
        pthread_mutex_lock(&proxy->lock);
        polled[0] = (struct pollfd){ .fd = proxy->fd, .events = POLLIN };
        for (size_t i = 0; i < LINKS && !proxy->hold; i++) {
            if (in_use(&proxy->links[i])) {
                links[count] = &proxy->links[i];
                uint64_t due =
                    watch(proxy, links[count], now, &polled[1 + WAYS * count]);
                when = due < when ? due : when;
                count++;
            }
        }
        pthread_mutex_unlock(&proxy->lock);
        poll(polled, (nfds_t)(1 + WAYS * count),
             (int)((when - now + 999999) / 1000000));
        pthread_mutex_lock(&proxy->lock);
        if (proxy->stopping) {
            pthread_mutex_unlock(&proxy->lock);
            return NULL;
        }
        if ((polled[0].revents & POLLIN) != 0) {
            accept_one(proxy);
        }
        for (size_t i = 0; i < count && !proxy->hold; i++) {
            serve_link(proxy, links[i], &polled[1 + WAYS * i]);
        }
        pthread_mutex_unlock(&proxy->lock);
    }
}

struct proxy *proxy_start(uint16_t port)
{
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    proxy->target = port;
    for (size_t i = 0; i < LINKS; i++) {
        proxy->links[i] = (struct link){ .ends = { -1, -1 } };
    }
    pthread_mutex_init(&proxy->lock, NULL);
    proxy->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    int buffer = KERNEL_BUFFER; /* what is held up is held up at the sender */
    setsockopt(proxy->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    if (bind(proxy->fd, (struct sockaddr *)&address, size) != 0 ||
        listen(proxy->fd, LINKS) != 0 ||
        getsockname(proxy->fd, (struct sockaddr *)&address, &size) != 0) {
        perror("proxy");
        abort();
    }
    snprintf(proxy->address, sizeof(proxy->address), "127.0.0.1:%u",
             (unsigned)ntohs(address.sin_port));
    pthread_create(&proxy->thread, NULL, proxy_thread, proxy);
    return proxy;
}

void proxy_stop(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->stopping = true;
    pthread_mutex_unlock(&proxy->lock);
    pthread_join(proxy->thread, NULL);
    for (size_t i = 0; i < LINKS; i++) {
        if (in_use(&proxy->links[i])) {
            link_close(&proxy->links[i], true);
        }
    }
    close(proxy->fd);
    pthread_mutex_destroy(&proxy->lock);
    free(proxy);
}

const char *proxy_address(const struct proxy *proxy)
{
    return proxy->address;
}

void proxy_cut_after(struct proxy *proxy, uint64_t up, uint64_t down)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->cut_at[PROXY_UP] = up == 0 ? 0 : proxy->bytes[PROXY_UP] + up;
    proxy->cut_at[PROXY_DOWN] = down == 0 ? 0 : proxy->bytes[PROXY_DOWN] + down;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_cut_often(struct proxy *proxy, uint64_t up, uint64_t down, uint64_t seed)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->cut_mean[PROXY_UP] = up;
    proxy->cut_mean[PROXY_DOWN] = down;
    proxy->random = seed;
    plan_cut(proxy);
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_faults(struct proxy *proxy, enum proxy_way way,
                  const struct lane_faults *faults, uint64_t seed)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->faults[way] = faults == NULL ? (struct lane_faults){ 0 } : *faults;
    proxy->random = seed;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_half_close(struct proxy *proxy, enum proxy_way way)
{
    pthread_mutex_lock(&proxy->lock);
    for (size_t i = 0; i < LINKS; i++) {
        if (in_use(&proxy->links[i])) {
            proxy->links[i].ended[way] = true;
            lane_finish(proxy->links[i].lanes[way]);
        }
    }
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_hold(struct proxy *proxy, int hold)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->hold = hold != 0;
    pthread_mutex_unlock(&proxy->lock);
}

static uint64_t bytes_passed(struct proxy *proxy, enum proxy_way way)
{
    pthread_mutex_lock(&proxy->lock);
    uint64_t bytes = proxy->bytes[way];
    pthread_mutex_unlock(&proxy->lock);
    return bytes;
}

uint64_t proxy_bytes_up(struct proxy *proxy)
{
    return bytes_passed(proxy, PROXY_UP);
}

uint64_t proxy_bytes_down(struct proxy *proxy)
{
    return bytes_passed(proxy, PROXY_DOWN);
}

unsigned proxy_connections(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned connections = proxy->connections;
    pthread_mutex_unlock(&proxy->lock);
    return connections;
}

unsigned proxy_cuts(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned cuts = proxy->cuts;
    pthread_mutex_unlock(&proxy->lock);
    return cuts;
}

unsigned proxy_tampered(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned tampered = proxy->tampered;
    pthread_mutex_unlock(&proxy->lock);
    return tampered;
}
