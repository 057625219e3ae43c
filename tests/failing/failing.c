/* failing — what stands behind the failpoints (server/store/failpoint.h) of the daemon
 * that tests start when they want it to fail. It is linked with all of the real one.
 *
 *   OPTIMD_FAILPOINT=NAME:kill[:N]    killed when it gets there for the N-th time
 *                    NAME:error[:N]   what follows fails then, as if the disk had
 *                    NAME:sleep:MS    waits so long whenever it gets there
 *
 * Several are joined by commas.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/store/failpoint.h"

enum { POINTS = 16, NAME = 48 };

static struct point {
    char name[NAME], action[16];
    unsigned number;
    atomic_uint reached;
} points[POINTS];
static size_t count;

static bool act(struct point *point)
{
    unsigned times = atomic_fetch_add(&point->reached, 1) + 1;
    if (strcmp(point->action, "sleep") == 0) {
        struct timespec time = { .tv_sec = point->number / 1000,
                                 .tv_nsec = (long)(point->number % 1000) * 1000000 };
        while (nanosleep(&time, &time) != 0 && errno == EINTR) {
        }
        return false;
    }
    if (times != point->number) {
        return false;
    }
    if (strcmp(point->action, "kill") == 0) {
        raise(SIGKILL);
    }
    return true;
}

static bool reached(const char *name)
{
    bool fails = false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(points[i].name, name) == 0) {
            fails = act(&points[i]) || fails;
        }
    }
    return fails;
}

__attribute__((constructor)) static void read_points(void)
{
    const char *given = getenv("OPTIMD_FAILPOINT");
    while (given != NULL && given[0] != '\0' && count < POINTS) {
        struct point *point = &points[count++];
        size_t size = strcspn(given, ",");
        char one[128];
        snprintf(one, sizeof one, "%.*s", (int)size, given);
        point->number = 1;
        if (sscanf(one, "%47[^:]:%15[^:]:%u", point->name, point->action,
                   &point->number) < 2) {
            fprintf(stderr, "OPTIMD_FAILPOINT has no action: %s\n", one);
            exit(EXIT_FAILURE);
        }
        given += size + (given[size] == ',');
    }
    failpoint_reached = reached;
}
