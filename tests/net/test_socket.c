/* socket — what connections have from the one that accepts them. */
#include "server/net/socket.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

static void congestion_of(int socket, char name[16])
{
    socklen_t size = 16;
    memset(name, 0, 16);
    cr_assert_eq(getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name, &size), 0);
}

/* Accept a connection on an address, prepared for reno; its congestion control. */
static void accept_one(uint32_t address, const char *congestion, char name[16])
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(address) };
    struct sockaddr *any = (struct sockaddr *)&at;
    socklen_t size = sizeof(at);
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socket_prepare(listening, any, congestion);
    cr_assert_eq(bind(listening, any, size), 0);
    cr_assert_eq(listen(listening, 1), 0);
    cr_assert_eq(getsockname(listening, any, &size), 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client, any, size), 0);
    int accepted = accept(listening, NULL, NULL);
    cr_assert_geq(accepted, 0);
    congestion_of(accepted, name);
    close(accepted);
    close(client);
    close(listening);
}

Test(socket, connections_of_this_machine_have_their_control_from_the_beginning)
{
    char name[16];
    accept_one(INADDR_LOOPBACK, "reno", name);
    cr_expect_str_eq(name, "reno");
    accept_one(INADDR_ANY, "reno", name);
    cr_expect_str_eq(name, "reno");
}

Test(socket, what_the_kernel_does_not_have_changes_nothing)
{
    char before[16], name[16];
    accept_one(INADDR_LOOPBACK, "", before);
    accept_one(INADDR_LOOPBACK, "no-such-control", name);
    cr_expect_str_eq(name, before);
}

/* Those of other machines get back what they would have had. */
Test(socket, connections_of_others_have_the_usual_control)
{
    struct sockaddr_in any = { .sin_family = AF_INET };
    struct sockaddr_in other = { .sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(0xC0000201) };
    char usual[16], name[16];
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    congestion_of(listening, usual);
    socket_prepare(listening, (struct sockaddr *)&any, "reno");
    congestion_of(listening, name);
    cr_expect_str_eq(name, "reno");
    struct opt_socket_tuning tuning = socket_tuning(0, "reno");
    opt_socket_tune(listening, (struct sockaddr *)&other, &tuning);
    congestion_of(listening, name);
    cr_expect_str_eq(name, usual);
    close(listening);
}
