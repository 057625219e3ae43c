/* daemon — the daemon as a whole; see commands.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/counters.h"
#include "tools/optctl/commands.h"

/* What a counter counts; of a newer daemon's that is not known. */
static const char *text_of(const char *name)
{
    size_t count;
    const struct opt_counter_text *texts = opt_counter_texts(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(texts[i].name, name) == 0) {
            return texts[i].text;
        }
    }
    return "";
}

static int print_counters(const struct ctl *ctl,
                          const struct optclient_counter *counters, size_t count)
{
    struct table *table = table_new("lrl");
    for (size_t i = 0; i < count; i++) {
        table_add(table, "%s", counters[i].name);
        table_add(table, "%" PRIu64, counters[i].value);
        table_add(table, "%s", text_of(counters[i].name));
    }
    return table_print(ctl, table);
}

int run_stats(struct ctl *ctl)
{
    struct optclient_counter *counters;
    size_t count;
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status = optclient_statistics(ctl->client, &counters, &count);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (ctl->json) {
        json_t *all = json_object();
        for (size_t i = 0; i < count; i++) {
            json_object_set_new(all, counters[i].name, ctl_count(counters[i].value));
        }
        result = ctl_answer(ctl, all);
    } else {
        result = print_counters(ctl, counters, count);
    }
    optclient_statistics_free(counters);
    return result;
}

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Statistics are counted by the engine, so that an engine that stands still is found.
 */
int run_ping(struct ctl *ctl)
{
    struct optclient_counter *counters;
    size_t count;
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    double begin = now_seconds();
    enum optclient_status status = optclient_statistics(ctl->client, &counters, &count);
    double seconds = now_seconds() - begin;
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    optclient_statistics_free(counters);
    if (ctl->json) {
        return ctl_answer(
            ctl, json_pack("{s:s, s:f}", "server", ctl->server, "seconds", seconds));
    }
    printf("%s answered in %.3g ms\n", ctl->server, seconds * 1e3);
    return ctl_done(ctl);
}

int run_reload(struct ctl *ctl)
{
    char unchanged[512] = "";
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status =
        optclient_reload(ctl->client, unchanged, sizeof unchanged);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (ctl->json) {
        return ctl_answer(ctl, json_pack("{s:s, s:s}", "server", ctl->server,
                                         "unchanged", unchanged));
    }
    printf("%s has read its configuration again%s%s\n", ctl->server,
           unchanged[0] != '\0' ? "; not changed while it runs: " : "", unchanged);
    return ctl_done(ctl);
}
