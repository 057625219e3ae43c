/* placement — see placement.h. */
#define _GNU_SOURCE /* processor sets */

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/bench/placement.h"

/* The processors that this process might use when it began. */
static cpu_set_t all;

static void remember_all(void)
{
    if (CPU_COUNT(&all) == 0) {
        (void)sched_getaffinity(0, sizeof all, &all);
    }
}

/* All threads that a process has now. */
static void put(pid_t pid, const cpu_set_t *where)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    const struct dirent *task;
    while (tasks != NULL && (task = readdir(tasks)) != NULL) {
        pid_t thread = (pid_t)strtol(task->d_name, NULL, 10);
        if (thread > 0) {
            (void)sched_setaffinity(thread, sizeof *where, where);
        }
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
}

const char *placement_name(enum placement placement)
{
    return placement == PLACEMENT_ONE ? "one processor" : "two processors";
}

bool placement_possible(enum placement placement)
{
    remember_all();
    return placement == PLACEMENT_ONE || CPU_COUNT(&all) > 1;
}

void placement_set(enum placement placement, pid_t client, pid_t server)
{
    cpu_set_t first, others;
    remember_all();
    others = all;
    CPU_ZERO(&first);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&first) == 0; i++) {
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &first);
            CPU_CLR(i, &others);
        }
    }
    put(client, &first);
    put(server,
        placement == PLACEMENT_ONE || CPU_COUNT(&others) == 0 ? &first : &others);
}

void placement_free(void)
{
    remember_all();
    put(getpid(), &all);
}
