/* link — see link.h. The namespaces are kept by descriptors. */
#define _GNU_SOURCE /* unshare, setns */

#include "tests/bench/link.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINK_NEAR_ADDRESS "10.77.0.1"

static int namespace_now(void)
{
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

bool link_enter(const struct link *link, enum link_end end)
{
    return setns(link->ends[end], CLONE_NEWNET) == 0;
}

/* Run a shell's command line where this process is now. */
__attribute__((format(printf, 1, 2))) static bool run(const char *format, ...)
{
    char command[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    fflush(NULL);
    return system(command) == 0; /* NOLINT: of our own making */
}

static bool make_namespace(struct link *link, enum link_end end)
{
    if (unshare(CLONE_NEWNET) != 0) {
        return false;
    }
    link->ends[end] = namespace_now();
    return link->ends[end] >= 0;
}

/* What an end needs, when the link is there. */
static bool set_up(const struct link *link, enum link_end end, const char *address,
                   const char *rate)
{
    return link_enter(link, end) &&
           run("exec 2>/dev/null; ip link set lo up && "
               "ip addr add %s/24 dev slow && ip link set slow up && "
               "tc qdisc add dev slow root tbf rate %s burst 1mb latency 50ms",
               address, rate);
}

bool link_open(struct link *link, const char *rate, char problem[256])
{
    *link = (struct link){ .ends = { namespace_now(), -1, -1 } };
    if (link->ends[LINK_HOME] < 0 || !make_namespace(link, LINK_FAR) ||
        !make_namespace(link, LINK_NEAR)) {
        snprintf(problem, 256, "network namespaces are not permitted: %s",
                 strerror(errno));
        return false;
    }
    bool made = run("exec 2>/dev/null; ip link add slow type veth peer name slow netns "
                    "/proc/%d/fd/%d",
                    (int)getpid(), link->ends[LINK_FAR]) &&
                set_up(link, LINK_NEAR, LINK_NEAR_ADDRESS, rate) &&
                set_up(link, LINK_FAR, LINK_FAR_ADDRESS, rate);
    if (!link_enter(link, LINK_HOME) || !made) {
        snprintf(problem, 256,
                 "no link limited to %s: it wants ip and tc (iproute2), and a kernel "
                 "with veth and tbf",
                 rate);
        return false;
    }
    return true;
}

void link_close(struct link *link)
{
    if (link->ends[LINK_HOME] >= 0) {
        (void)link_enter(link, LINK_HOME);
    }
    for (int i = 0; i < LINK_ENDS; i++) {
        if (link->ends[i] >= 0) {
            close(link->ends[i]);
        }
        link->ends[i] = -1;
    }
}
