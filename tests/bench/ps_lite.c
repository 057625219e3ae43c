/* ps_lite — see ps_lite.h. */
#include "tests/bench/ps_lite.h"

#include <stdlib.h>
#include <string.h>

#include "tests/bench/loopback.h"

static bool role_start(struct talk *talk, const char *role, unsigned port,
                       unsigned workers, const char *const program[4])
{
    char role_word[40], port_word[40], workers_word[40];
    snprintf(role_word, sizeof role_word, "DMLC_ROLE=%s", role);
    snprintf(port_word, sizeof port_word, "DMLC_PS_ROOT_PORT=%u", port);
    snprintf(workers_word, sizeof workers_word, "DMLC_NUM_WORKER=%u", workers);
    const char *const words[] = { "/usr/bin/env",
                                  role_word,
                                  port_word,
                                  workers_word,
                                  "DMLC_NUM_SERVER=1",
                                  "DMLC_PS_ROOT_URI=127.0.0.1",
                                  "DMLC_NODE_HOST=127.0.0.1",
                                  "DMLC_INTERFACE=lo",
                                  "OMP_WAIT_POLICY=passive",
                                  program[0],
                                  program[1],
                                  program[2],
                                  program[3],
                                  NULL };
    return talk_start(talk, words);
}

bool ps_lite_start(struct ps_lite *cluster, const char *program, unsigned workers,
                   size_t tensors, size_t elements, int threads, char problem[256])
{
    char tensors_word[24], elements_word[24], threads_word[24];
    const char *const words[4] = { program, tensors_word, elements_word, threads_word };
    unsigned port = loopback_port();
    *cluster = (struct ps_lite){ .count = workers };
    snprintf(tensors_word, sizeof tensors_word, "%zu", tensors);
    snprintf(elements_word, sizeof elements_word, "%zu", elements);
    snprintf(threads_word, sizeof threads_word, "%d", threads);
    snprintf(problem, 256, "there is no process for it");
    bool good = role_start(&cluster->scheduler, "scheduler", port, workers, words) &&
                role_start(&cluster->server, "server", port, workers, words);
    for (unsigned i = 0; i < workers && good; i++) {
        good = role_start(&cluster->workers[i], "worker", port, workers, words);
    }
    for (unsigned i = 0; i < workers && good; i++) {
        good = talk_hear(&cluster->workers[i], cluster->version, problem);
    }
    return good;
}

void ps_lite_stop(struct ps_lite *cluster)
{
    for (unsigned i = 0; i < cluster->count; i++) {
        talk_stop(&cluster->workers[i]);
    }
    talk_stop(&cluster->server);
    talk_stop(&cluster->scheduler);
}

bool ps_lite_order(struct ps_lite *cluster, const char *order, double values[2],
                   char problem[256])
{
    values[0] = 0;
    values[1] = 0;
    for (unsigned i = 0; i < cluster->count; i++) {
        talk_say(&cluster->workers[i], "%s", order);
    }
    for (unsigned i = 0; i < cluster->count; i++) {
        char line[TALK_LINE], *rest;
        if (!talk_hear(&cluster->workers[i], line, problem)) {
            return false;
        }
        double first = strtod(line, &rest), second = strtod(rest, NULL);
        values[0] = first > values[0] ? first : values[0];
        values[1] = second > values[1] ? second : values[1];
    }
    return true;
}
