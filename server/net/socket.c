/* socket — see socket.h. */
#define _GNU_SOURCE /* struct ucred */
#include "server/net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    KEEPALIVE_IDLE_S = 5,
    KEEPALIVE_INTERVAL_S = 2,
    KEEPALIVE_COUNT = 3, /* unanswered: the peer is gone */
    CONGESTION = 16      /* bytes of the name of a congestion control, at most */
};

/* The congestion control that sockets have by themselves, if socket_prepare has given
 * listening ones another; "": it has not. */
static char usual[CONGESTION];

bool socket_is_local(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, address, sizeof(four));
        return (ntohl(four.sin_addr.s_addr) >> 24) == 127;
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, address, sizeof(six));
        return IN6_IS_ADDR_LOOPBACK(&six.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) &&
                six.sin6_addr.s6_addr[12] == 127);
    }
    return address->sa_family == AF_UNIX;
}

bool socket_has_ended(int socket)
{
    struct pollfd watched = { .fd = socket, .events = POLLRDHUP };
    return poll(&watched, 1, 0) > 0 &&
           (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

uint64_t socket_silence_ms(int socket)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
        return 0;
    }
    return info.tcpi_last_ack_recv < info.tcpi_last_data_recv
               ? info.tcpi_last_ack_recv
               : info.tcpi_last_data_recv;
}

void socket_name(const struct sockaddr *address, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";
    out[0] = '\0';
    if (address->sa_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, address, sizeof(four));
        inet_ntop(AF_INET, &four.sin_addr, host, sizeof(host));
        snprintf(out, size, "%s:%u", host, (unsigned)ntohs(four.sin_port));
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, address, sizeof(six));
        inet_ntop(AF_INET6, &six.sin6_addr, host, sizeof(host));
        snprintf(out, size, "[%s]:%u", host, (unsigned)ntohs(six.sin6_port));
    } else if (address->sa_family == AF_UNIX) {
        struct sockaddr_un path;
        memcpy(&path, address, sizeof(path));
        snprintf(out, size, "unix:%s", path.sun_path);
    }
}

void socket_peer_name(int socket, const struct sockaddr *peer, char *out, size_t size)
{
    struct ucred who;
    socklen_t length = sizeof(who);
    if (peer->sa_family == AF_UNIX &&
        getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0) {
        snprintf(out, size, "unix:pid=%ld,uid=%ld", (long)who.pid, (long)who.uid);
        return;
    }
    socket_name(peer, out, size);
}

static void set(int socket, int level, int option, int value)
{
    (void)setsockopt(socket, level, option, &value, sizeof(value));
}

static void set_congestion(int socket, const char *name)
{
    (void)setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name,
                     (socklen_t)strlen(name));
}

/* Whether any address of this machine is meant. */
static bool is_any(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, address, sizeof(four));
        return four.sin_addr.s_addr == htonl(INADDR_ANY);
    }
    struct sockaddr_in6 six;
    memcpy(&six, address, sizeof(six));
    return IN6_IS_ADDR_UNSPECIFIED(&six.sin6_addr);
}

void socket_prepare(int socket, const struct sockaddr *address, const char *congestion)
{
    char before[CONGESTION] = "";
    socklen_t size = sizeof(before) - 1;
    if (congestion[0] == '\0' || address->sa_family == AF_UNIX ||
        !(socket_is_local(address) || is_any(address)) ||
        getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, before, &size) != 0) {
        return;
    }
    memcpy(usual, before, sizeof(usual));
    set_congestion(socket, congestion);
}

bool socket_knows_congestion(const char *name, struct opt_error *error)
{
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    probe = probe >= 0 ? probe : socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool known = name[0] == '\0' || probe < 0 ||
                 setsockopt(probe, IPPROTO_TCP, TCP_CONGESTION, name,
                            (socklen_t)strlen(name)) == 0;
    int code = errno;
    if (probe >= 0) {
        close(probe);
    }
    if (!known) {
        char list[128] = "";
        FILE *file = fopen("/proc/sys/net/ipv4/tcp_available_congestion_control", "re");
        if (file != NULL) {
            size_t size = fread(list, 1, sizeof(list) - 1, file);
            list[size] = '\0';
            list[strcspn(list, "\n")] = '\0';
            fclose(file);
        }
        opt_fail(error, OPT_INVALID_ARGUMENT,
                 "\"%s\" cannot be had here (%s); there are: %s", name, strerror(code),
                 list);
    }
    return known;
}

void socket_tune(int socket, const struct sockaddr *peer, uint32_t user_timeout_ms,
                 const char *congestion)
{
    if (peer->sa_family == AF_UNIX) {
        return;
    }
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
    if (user_timeout_ms > 0) {
        set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)user_timeout_ms);
    }
    /* A control made for long paths, such as bbr, halves what loopback can carry. */
    if (socket_is_local(peer)) {
        if (congestion[0] != '\0') {
            set_congestion(socket, congestion);
        }
    } else if (usual[0] != '\0') {
        set_congestion(socket, usual);
    }
}
