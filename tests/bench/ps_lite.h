/* ps_lite — a scheduler, a server and workers of ps-lite.
 *
 * They are processes of the program that is made of peers/ps_lite.cpp and a checkout of
 * ps-lite; without the program there is no such peer. TCP on the loopback, one server,
 * congestion control as the system has it, for ps-lite cannot choose. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_PS_LITE_H
#define OPTIMD_TESTS_BENCH_PS_LITE_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/bench/talk.h"

enum { PS_LITE_WORKERS_MAX = 2 };

struct ps_lite {
    struct talk scheduler, server, workers[PS_LITE_WORKERS_MAX];
    unsigned count; /* of workers */
    char version[TALK_LINE];
};

/* Workers that share a model of equal tensors, for steps; the server updates them with
 * so many threads. False with a sentence. */
bool ps_lite_start(struct ps_lite *cluster, const char *program, unsigned workers,
                   size_t tensors, size_t elements, int threads, char problem[256]);
void ps_lite_stop(struct ps_lite *cluster);

/* Give all workers an order of one line (see peers/ps_lite.cpp): the largest of their
 * first numbers, and of their second if there is one. False with a sentence. */
bool ps_lite_order(struct ps_lite *cluster, const char *order, double values[2],
                   char problem[256]);

#endif
