#include "common/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum {
    KEEPALIVE_IDLE_S = 5,
    KEEPALIVE_INTERVAL_S = 2,
    KEEPALIVE_COUNT = 3 /* unanswered: the peer is gone */
};

bool opt_socket_is_local(const struct sockaddr *address)
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

void opt_socket_name(const struct sockaddr *address, char *out, size_t size)
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

static void set(int socket, int level, int option, int value)
{
    (void)setsockopt(socket, level, option, &value, sizeof(value));
}

void opt_socket_tune(int socket, const struct sockaddr *peer,
                     const struct opt_socket_tuning *tuning)
{
    if (peer->sa_family == AF_UNIX) {
        return;
    }
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
    if (tuning->user_timeout_ms > 0) {
        set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)tuning->user_timeout_ms);
    }
    /* A control made for long paths, such as bbr, halves what loopback can carry. */
    const char *name = opt_socket_is_local(peer) ? tuning->local : tuning->other;
    if (name[0] != '\0') {
        (void)setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name,
                         (socklen_t)strlen(name));
    }
}
