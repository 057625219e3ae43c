/* socket — see socket.h. */
#include "server/net/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CONGESTION = 16 /* bytes of the name of a congestion control, at most */ };

/* The congestion control that sockets have by themselves, if socket_prepare has given
 * listening ones another; "": it has not. */
static char usual[CONGESTION];

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
        !(opt_socket_is_local(address) || is_any(address)) ||
        getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, before, &size) != 0) {
        return;
    }
    memcpy(usual, before, sizeof(usual));
    (void)setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, congestion,
                     (socklen_t)strlen(congestion));
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

struct opt_socket_tuning socket_tuning(uint32_t user_timeout_ms, const char *congestion)
{
    return (struct opt_socket_tuning){ .user_timeout_ms = user_timeout_ms,
                                       .local = congestion,
                                       .other = usual };
}
