/* control_group — see control_group.h. */
#include "server/control_group.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 4096 };

/* Where a hierarchy of groups is mounted, and this process's group in it. */
struct group {
    char mount[PATH_MAX]; /* with root before it */
    char path[PATH_MAX];  /* of the group below it; "": the topmost that is seen */
};

/* The limit that one group has in its folder; UINT64_MAX: none. */
typedef uint64_t (*limit_reader)(const char *folder);

/* Whether a list such as "cpu,cpuacct" has the word. */
static bool lists(const char *list, const char *word)
{
    size_t size = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, size) == 0 &&
            (at[size] == '\0' || at[size] == ',' || at[size] == '\n')) {
            return true;
        }
    }
    return false;
}

static FILE *open_below(const char *root, const char *path)
{
    char name[PATH_MAX];
    int size = snprintf(name, sizeof(name), "%s%s", root, path);
    return size > 0 && (size_t)size < sizeof(name) ? fopen(name, "re") : NULL;
}

/* The process's group in the hierarchy of a controller, of the second version if it is
 * "". A line is NUMBER:CONTROLLERS:PATH. */
static bool find_path(const char *root, const char *controller, char out[PATH_MAX])
{
    FILE *file = open_below(root, "/proc/self/cgroup");
    char line[LINE];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path != NULL) {
            *path++ = '\0';
            path[strcspn(path, "\n")] = '\0';
            found = controller[0] == '\0' ? controllers[1] == '\0'
                                          : lists(controllers + 1, controller);
            snprintf(out, PATH_MAX, "%s", path);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* Where the hierarchy is mounted. A line is ID PARENT DEVICE ROOT MOUNT OPTIONS [...] -
 * TYPE SOURCE OPTIONS, the last of which name controllers; ROOT is the group that MOUNT
 * shows. */
static bool find_mount(const char *root, const char *controller, char top[PATH_MAX],
                       char mount[PATH_MAX])
{
    FILE *file = open_below(root, "/proc/self/mountinfo");
    char line[LINE], type[32], options[LINE];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        const char *rest = strstr(line, " - ");
        if (rest != NULL &&
            sscanf(line, "%*s %*s %*s %4095s %4095s", top, mount) == 2 &&
            sscanf(rest, " - %31s %*s %4095s", type, options) == 2) {
            found = controller[0] == '\0'
                        ? strcmp(type, "cgroup2") == 0
                        : strcmp(type, "cgroup") == 0 && lists(options, controller);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

static bool find_group(const char *root, const char *controller, struct group *out)
{
    char top[PATH_MAX], mount[PATH_MAX], path[PATH_MAX];
    if (!find_path(root, controller, path) ||
        !find_mount(root, controller, top, mount)) {
        return false;
    }
    size_t size = strcmp(top, "/") == 0 ? 0 : strlen(top);
    bool below = strncmp(path, top, size) == 0 &&
                 (path[size] == '/' || path[size] == '\0') &&
                 strstr(path, "/..") == NULL;
    const char *rest = below && strcmp(path + size, "/") != 0 ? path + size : "";
    int length = snprintf(out->mount, sizeof(out->mount), "%s%s", root, mount);
    snprintf(out->path, sizeof(out->path), "%s", rest);
    return length > 0 && (size_t)length < sizeof(out->mount);
}

/* The least limit of the group and those above it. */
static uint64_t least_limit(const char *root, const char *controller,
                            limit_reader limit_of)
{
    struct group group;
    uint64_t least = UINT64_MAX;
    if (!find_group(root, controller, &group)) {
        return least;
    }
    for (;;) {
        char folder[2 * PATH_MAX];
        snprintf(folder, sizeof(folder), "%s%s", group.mount, group.path);
        uint64_t limit = limit_of(folder);
        least = limit < least ? limit : least;
        char *last = strrchr(group.path, '/');
        if (last == NULL) {
            return least;
        }
        *last = '\0';
    }
}

static bool read_line(const char *folder, const char *name, char line[64])
{
    char path[2 * PATH_MAX + 64];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    bool read = file != NULL && fgets(line, 64, file) != NULL;
    if (file != NULL) {
        fclose(file);
    }
    return read;
}

/* How many whole periods a quota has, at least 1. */
static uint64_t cores_of(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) {
        return UINT64_MAX;
    }
    return quota < period ? 1 : (uint64_t)(quota / period);
}

/* "max 100000" or "250000 100000" */
static uint64_t cores_in_second(const char *folder)
{
    char line[64];
    long long quota, period;
    bool limited = read_line(folder, "cpu.max", line) &&
                   sscanf(line, "%lld %lld", &quota, &period) == 2;
    return limited ? cores_of(quota, period) : UINT64_MAX;
}

static uint64_t cores_in_first(const char *folder)
{
    char quota[64], period[64];
    bool limited = read_line(folder, "cpu.cfs_quota_us", quota) &&
                   read_line(folder, "cpu.cfs_period_us", period);
    return limited ? cores_of(strtoll(quota, NULL, 10), strtoll(period, NULL, 10))
                   : UINT64_MAX;
}

/* A number of bytes, or "max". */
static uint64_t bytes_in(const char *folder, const char *name)
{
    char line[64], *end;
    if (!read_line(folder, name, line)) {
        return UINT64_MAX;
    }
    uint64_t bytes = strtoull(line, &end, 10);
    return end != line ? bytes : UINT64_MAX;
}

static uint64_t memory_in_second(const char *folder)
{
    return bytes_in(folder, "memory.max");
}

static uint64_t memory_in_first(const char *folder)
{
    return bytes_in(folder, "memory.limit_in_bytes");
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t control_group_cores(const char *root)
{
    return smaller(least_limit(root, "", cores_in_second),
                   least_limit(root, "cpu", cores_in_first));
}

uint64_t control_group_memory(const char *root)
{
    return smaller(least_limit(root, "", memory_in_second),
                   least_limit(root, "memory", memory_in_first));
}
