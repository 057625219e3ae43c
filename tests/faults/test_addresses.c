/* A name with several addresses of which the first do not answer at all, as of a record
 * that is out of date: the next one is reached within a caller's time. The system's
 * look-up is replaced, and an address that does not answer is a socket whose queue of
 * connections is full: the kernel drops what else comes.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

#define NAME "several.test"
enum { FILL = 8, LIKE_OPTCTL_MS = 5000 };

static const char *const addresses[] = { "127.0.0.2", "127.0.0.3", "127.0.0.1" };
enum { ADDRESSES = sizeof(addresses) / sizeof(addresses[0]), SILENT = ADDRESSES - 1 };
static size_t first; /* of those that the name has */

typedef int look_up(const char *, const char *, const struct addrinfo *,
                    struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    union {
        void *symbol;
        look_up *function;
    } next = { .symbol = dlsym(RTLD_NEXT, "getaddrinfo") };
    if (name == NULL || strcmp(name, NAME) != 0) {
        return next.function(name, service, hints, out);
    }
    if (hints != NULL && (hints->ai_flags & AI_NUMERICHOST) != 0) {
        return EAI_NONAME;
    }
    for (size_t i = first; i < ADDRESSES; i++) {
        int code = next.function(addresses[i], service, hints, out);
        if (code != 0) {
            return code;
        }
        while (*out != NULL) {
            out = &(*out)->ai_next;
        }
    }
    return 0;
}

static struct sockaddr_in at(const char *address, uint16_t port)
{
    struct sockaddr_in place = { .sin_family = AF_INET, .sin_port = htons(port) };
    cr_assert_eq(inet_pton(AF_INET, address, &place.sin_addr), 1);
    return place;
}

/* Listen without ever accepting, and connect until nothing more is taken. */
static void fall_silent(const char *address, uint16_t port)
{
    struct sockaddr_in place = at(address, port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&place, sizeof(place)), 0);
    cr_assert_eq(listen(listener, 0), 0);
    for (int i = 0; i < FILL; i++) {
        struct tcp_info info = { 0 };
        socklen_t size = sizeof(info);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fd, (struct sockaddr *)&place, sizeof(place));
        cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
        if (info.tcpi_state == TCP_SYN_SENT) {
            return; /* on loopback it would be through by now */
        }
    }
    cr_assert_fail("%s takes whatever comes", address);
}

static void reach_past(size_t silent)
{
    struct daemon_process daemon;
    struct optclient *client = NULL;
    struct optclient_options options = test_options();
    char address[64];
    daemon_start(&daemon, NULL);
    first = SILENT - silent;
    for (size_t i = first; i < SILENT; i++) {
        fall_silent(addresses[i], daemon.port);
    }
    options.connect_timeout_ms = LIKE_OPTCTL_MS;
    snprintf(address, sizeof(address), NAME ":%u", (unsigned)daemon.port);
    expect_ok(optclient_connect(address, &options, &client));
    optclient_close(client);
    daemon_stop(&daemon);
}

Test(addresses, are_tried_past_one_that_does_not_answer, .timeout = 20)
{
    reach_past(1);
}

Test(addresses, are_tried_past_two_that_do_not_answer, .timeout = 20)
{
    reach_past(2);
}
