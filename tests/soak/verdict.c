/* verdict — what became of the weights, and of the daemon. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/soak/soak.h"

/* Whether all elements are minus so many. */
static bool all_are(const float *values, size_t count, float times, const char *name,
                    char problem[512])
{
    for (size_t i = 0; i < count; i++) {
        if (values[i] != -times) {
            snprintf(problem, 512,
                     "element %zu of \"%s\" is %g, but %g pushes were applied to it", i,
                     name, (double)values[i], (double)times);
            return false;
        }
    }
    return true;
}

static bool judge(const struct history *history, float *own, const float *common,
                  const float *large, struct history_verdict *verdict,
                  char problem[512])
{
    unsigned pushes = history_pushes(history);
    float applied = 0, applied_large = 0;
    for (size_t i = 0; i < (size_t)SOAK_WORKERS * pushes; i++) {
        own[i] = 0.0f - own[i];
        applied += own[i];
        applied_large += i % pushes % SOAK_LARGE_EVERY == 0 ? own[i] : 0;
    }
    history_judge(history, own, verdict);
    snprintf(problem, 512, "%s", verdict->problem);
    return problem[0] == '\0' &&
           all_are(common, SOAK_COMMON, applied, "common", problem) &&
           all_are(large, SOAK_LARGE, applied_large, "large", problem);
}

bool soak_judge(struct optclient *client, unsigned model, const struct history *history,
                struct history_verdict *verdict, char problem[512])
{
    size_t rows = (size_t)SOAK_WORKERS * history_pushes(history);
    float *memory = malloc((rows + SOAK_COMMON + SOAK_LARGE) * sizeof *memory);
    struct optclient_model *opened;
    const struct optclient_values values[] = {
        { .tensor = SOAK_OWN, .values = memory },
        { .tensor = SOAK_COMMONS, .values = memory + rows },
        { .tensor = SOAK_LARGES, .values = memory + rows + SOAK_COMMON },
    };
    bool good = false;
    if (memory == NULL ||
        soak_open(client, model, (unsigned)rows, &opened) != OPTCLIENT_OK ||
        optclient_pull(opened, values, SOAK_TENSORS, NULL, NULL) != OPTCLIENT_OK) {
        snprintf(problem, 512, "the weights cannot be had: %.400s", optclient_error());
    } else {
        good = judge(history, memory, memory + rows, memory + rows + SOAK_COMMON,
                     verdict, problem);
    }
    free(memory);
    return good;
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
