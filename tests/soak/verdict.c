/* verdict — what became of the weights, and of the daemon. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/soak/soak.h"

/* How often each part of each push counts in the weights of the parts. */
static void count(const float *weights, size_t elements, size_t pushes, float *times)
{
    for (size_t part = 0; part < SOAK_PARTS; part++) {
        for (size_t push = 0; push < pushes; push++) {
            times[part * pushes + push] = soak_times(weights + part * elements, push);
        }
    }
}

bool soak_judge(struct optclient *client, unsigned model, const struct history *history,
                struct history_verdict *verdict, char problem[512])
{
    size_t pushes = (size_t)SOAK_WORKERS * history_pushes(history);
    size_t elements = soak_elements(history_pushes(history));
    float *weights = malloc(SOAK_PARTS * elements * sizeof *weights);
    float *times = malloc(SOAK_PARTS * pushes * sizeof *times);
    struct optclient_model *opened = NULL;
    struct optclient_values values[SOAK_PARTS];
    for (unsigned p = 0; p < SOAK_PARTS; p++) {
        values[p] = (struct optclient_values){ .tensor = soak_tensor(p),
                                               .values = weights + p * elements };
    }
    if (weights == NULL || times == NULL ||
        optclient_open(client, soak_name(model), 0, &opened) != OPTCLIENT_OK ||
        optclient_pull(opened, values, SOAK_PARTS, NULL, NULL) != OPTCLIENT_OK) {
        snprintf(problem, 512, "the weights cannot be had: %.400s", optclient_error());
    } else {
        count(weights, elements, pushes, times);
        history_judge(history, times, SOAK_PARTS, soak_splits(model), verdict);
        snprintf(problem, 512, "%s", verdict->problem);
    }
    optclient_model_close(opened);
    if (optclient_delete(client, soak_name(model)) != OPTCLIENT_OK) {
        snprintf(problem, 512, "it cannot be deleted: %.400s", optclient_error());
    }
    free(weights);
    free(times);
    return problem[0] == '\0';
}

size_t soak_resident(pid_t pid)
{
    char path[64], line[128] = "";
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    const char *resident = read ? strchr(line, ' ') : NULL; /* the second, in pages */
    return resident == NULL
               ? 0
               : strtoul(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

size_t soak_descriptors(pid_t pid)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    DIR *directory = opendir(path);
    while (directory != NULL && readdir(directory) != NULL) {
        count++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}
