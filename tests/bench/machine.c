/* machine — see machine.h. Reads /proc; what cannot be read is reported as unknown. */
#include "tests/bench/machine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <uv.h>

#include "common/optim/update.h"
#include "tests/bench/compare.h"

static const double quiet_share = 0.93, moment_seconds = 0.25;

/* First line of path that begins with key, after the colon and blanks; key "" takes the
 * first line whole. */
static const char *line_of(const char *path, const char *key, char text[256])
{
    char line[256];
    FILE *file = fopen(path, "re");
    snprintf(text, 256, "unknown");
    if (file == NULL) {
        return text;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            const char *value = key[0] == '\0' ? line : strchr(line, ':');
            value = value == NULL ? line : value + strspn(value, ": \t");
            snprintf(text, 256, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    fclose(file);
    return text;
}

static double kilobytes_of(const char *key)
{
    char text[256];
    return strtod(line_of("/proc/meminfo", key, text), NULL);
}

int machine_cores(void)
{
    unsigned cores = uv_available_parallelism();
    return cores > 0 ? (int)cores : 1;
}

size_t machine_available(void)
{
    return (size_t)(kilobytes_of("MemAvailable") * 1024);
}

/* Of the first processor; nothing if the system does not tell. */
static void report_caches(struct report *report)
{
    char list[128] = "", path[96], level[256], size[256];
    size_t used = 0;
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level",
                 i);
        line_of(path, "", level);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size",
                 i);
        line_of(path, "", size);
        if (strcmp(level, "unknown") != 0 && used < sizeof list) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%sL%.4s %.16s",
                                     used == 0 ? "" : ", ", level, size);
        }
    }
    if (used > 0) {
        report_fact(report, "caches", "%s", list);
    }
}

void machine_describe(struct report *report)
{
    char text[256];
    struct utsname name;
    char date[64];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
    report_fact(report, "optimd", "%s", OPTIMD_VERSION);
    report_fact(report, "date", "%s", date);
    report_fact(report, "processor", "%s",
                line_of("/proc/cpuinfo", "model name", text));
    report_fact(report, "cores", "%d", machine_cores());
    report_caches(report);
    report_fact(report, "memory", "%.1f GiB", kilobytes_of("MemTotal") / (1 << 20));
    if (uname(&name) == 0) {
        report_fact(report, "kernel", "%s %s %s", name.sysname, name.release,
                    name.machine);
    }
    report_fact(report, "system's congestion", "%s",
                line_of("/proc/sys/net/ipv4/tcp_congestion_control", "", text));
    report_fact(report, "huge pages", "%s",
                line_of("/sys/kernel/mm/transparent_hugepage/enabled", "", text));
#ifdef __clang__
    report_fact(report, "compiler", "%s", __VERSION__);
#else
    report_fact(report, "compiler", "gcc %s", __VERSION__);
#endif
    report_fact(report, "daemon", "defaults, but --memory: three quarters of it");
    report_fact(report, "kernels", "%s", opt_isa_name(opt_isa_current()));
}

struct ticks {
    double idle, all;
};

static bool ticks_now(struct ticks *out)
{
    char text[256];
    line_of("/proc/stat", "", text);
    char *rest = text + strcspn(text, " ");
    *out = (struct ticks){ 0, 0 };
    for (int i = 0; i < 8; i++) {
        char *end;
        double value = strtod(rest, &end);
        if (end == rest) {
            return false;
        }
        out->all += value;
        out->idle += i == 3 || i == 4 ? value : 0; /* idle and waiting for a disk */
        rest = end;
    }
    return true;
}

bool machine_quiet(double limit, double *idle)
{
    struct timespec moment = { 0, (long)(moment_seconds * 1e9) };
    double begin = seconds_now();
    *idle = 0;
    do {
        struct ticks before, after;
        if (!ticks_now(&before)) {
            return false;
        }
        nanosleep(&moment, NULL);
        if (!ticks_now(&after) || after.all <= before.all) {
            return false;
        }
        *idle = (after.idle - before.idle) / (after.all - before.all);
    } while (*idle < quiet_share && seconds_now() - begin < limit);
    return *idle >= quiet_share;
}
