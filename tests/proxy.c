#include "tests/proxy.h"

#include <arpa/inet.h>
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

enum { LINKS = 64, CHUNK = 16 << 10, UP = 0, DOWN = 1, TICK_MS = 20 };

/* One connection through the proxy. */
struct link {
    int ends[2]; /* the client's, the daemon's; -1: not in use */
};

struct proxy {
    int fd;
    uint16_t target;
    char address[32];
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest */
    bool stopping;
    bool hold;
    size_t slow;      /* most bytes up in a tick; 0: all */
    uint64_t next_ms; /* when more may pass up */
    uint64_t bytes[2];
    uint64_t cut_at[2]; /* 0: never */
    unsigned connections;
    struct link links[LINKS];
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void cut(struct link *link)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    for (int i = 0; i < 2; i++) {
        setsockopt(link->ends[i], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        close(link->ends[i]);
        link->ends[i] = -1;
    }
}

static void accept_one(struct proxy *proxy)
{
    int client = accept(proxy->fd, NULL, NULL);
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
    int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(daemon, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    proxy->connections++;
    for (size_t i = 0; i < LINKS; i++) {
        if (proxy->links[i].ends[0] < 0) {
            proxy->links[i] = (struct link){ { client, daemon } };
            return;
        }
    }
    abort();
}

/* Pass on what has come on one end. False: the connection is over. */
static bool pass(struct proxy *proxy, struct link *link, int direction)
{
    uint8_t bytes[CHUNK];
    size_t most = sizeof(bytes);
    if (direction == UP && proxy->slow > 0) {
        most = proxy->slow < most ? proxy->slow : most;
        proxy->next_ms = now_ms() + TICK_MS;
    }
    uint64_t left = proxy->cut_at[direction] - proxy->bytes[direction];
    bool last = proxy->cut_at[direction] != 0 && left <= most;
    if (last) {
        most = (size_t)left;
    }
    ssize_t received = recv(link->ends[direction], bytes, most, MSG_DONTWAIT);
    if (received <= 0) {
        return false;
    }
    ssize_t sent =
        send(link->ends[1 - direction], bytes, (size_t)received, MSG_NOSIGNAL);
    proxy->bytes[direction] += (uint64_t)received;
    if (last && proxy->bytes[direction] == proxy->cut_at[direction]) {
        proxy->cut_at[UP] = 0;
        proxy->cut_at[DOWN] = 0;
        return false;
    }
    return sent == received;
}

/* Whether bytes may pass in this direction now. */
static bool may_pass(const struct proxy *proxy, int direction)
{
    return direction == DOWN || proxy->slow == 0 || now_ms() >= proxy->next_ms;
}

static void serve(struct proxy *proxy, const struct pollfd *polled,
                  struct link *const *links, size_t count)
{
    if ((polled[0].revents & POLLIN) != 0) {
        accept_one(proxy);
    }
    for (size_t i = 0; i < count && !proxy->hold; i++) {
        for (int direction = UP; direction <= DOWN; direction++) {
            const struct pollfd *end = &polled[1 + 2 * i + (size_t)direction];
            if (end->revents != 0 && links[i]->ends[0] >= 0 &&
                may_pass(proxy, direction) && !pass(proxy, links[i], direction)) {
                cut(links[i]);
            }
        }
    }
}

static void *proxy_thread(void *argument)
{
    struct proxy *proxy = argument;
    for (;;) {
        struct pollfd polled[1 + 2 * LINKS];
        struct link *links[LINKS];
        size_t count = 0;
        pthread_mutex_lock(&proxy->lock);
        polled[0] = (struct pollfd){ .fd = proxy->fd, .events = POLLIN };
        for (size_t i = 0; i < LINKS && !proxy->hold; i++) {
            if (proxy->links[i].ends[0] >= 0) {
                links[count] = &proxy->links[i];
                for (size_t e = 0; e < 2; e++) {
                    polled[1 + 2 * count + e] =
                        (struct pollfd){ .fd = proxy->links[i].ends[e],
                                         .events =
                                             may_pass(proxy, (int)e) ? POLLIN : 0 };
                }
                count++;
            }
        }
        pthread_mutex_unlock(&proxy->lock);
        poll(polled, (nfds_t)(1 + 2 * count), TICK_MS);
        pthread_mutex_lock(&proxy->lock);
        if (proxy->stopping) {
            pthread_mutex_unlock(&proxy->lock);
            return NULL;
        }
        serve(proxy, polled, links, count);
        pthread_mutex_unlock(&proxy->lock);
    }
}

struct proxy *proxy_start(uint16_t port)
{
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    proxy->target = port;
    for (size_t i = 0; i < LINKS; i++) {
        proxy->links[i] = (struct link){ { -1, -1 } };
    }
    pthread_mutex_init(&proxy->lock, NULL);
    proxy->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
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
        if (proxy->links[i].ends[0] >= 0) {
            cut(&proxy->links[i]);
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
    proxy->cut_at[UP] = up == 0 ? 0 : proxy->bytes[UP] + up;
    proxy->cut_at[DOWN] = down == 0 ? 0 : proxy->bytes[DOWN] + down;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_hold(struct proxy *proxy, int hold)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->hold = hold != 0;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_slow(struct proxy *proxy, size_t bytes)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->slow = bytes;
    pthread_mutex_unlock(&proxy->lock);
}

uint64_t proxy_bytes_up(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    uint64_t bytes = proxy->bytes[UP];
    pthread_mutex_unlock(&proxy->lock);
    return bytes;
}

uint64_t proxy_bytes_down(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    uint64_t bytes = proxy->bytes[DOWN];
    pthread_mutex_unlock(&proxy->lock);
    return bytes;
}

unsigned proxy_connections(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned connections = proxy->connections;
    pthread_mutex_unlock(&proxy->lock);
    return connections;
}
