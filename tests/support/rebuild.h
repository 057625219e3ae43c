/* rebuild — a recorder that keeps all that becomes true in an engine, and makes models
 * and workers of another engine again from nothing else.
 */
#ifndef OPTIMD_TESTS_SUPPORT_REBUILD_H
#define OPTIMD_TESTS_SUPPORT_REBUILD_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "server/engine/commit.h"
#include "tests/support/engine_harness.h"

struct note;
struct written;

enum { REBUILD_HELD = 3 };

struct rebuild {
    struct recorder recorder; /* for the engine's settings */
    uv_mutex_t lock;          /* the engine notes, the test looks */
    struct note *first, *last;
    struct note *open; /* the first of the turn that is not over */
    struct engine *engine;
    struct written *held[REBUILD_HELD]; /* the last that were taken, to be given back */
    size_t taken;
};

/* Set engine before the first update. */
void rebuild_init(struct rebuild *rebuild);
void rebuild_free(struct rebuild *rebuild);

/* Give back what is held of the engine's memory: before the engine ends. */
void rebuild_let_go(struct rebuild *rebuild);

/* Whether the turn that settled this push of the worker is over. */
bool rebuild_knows(struct rebuild *rebuild, const char *worker, uint64_t sequence);
/* Notes of this kind so far. */
size_t rebuild_count(struct rebuild *rebuild, enum commit_kind kind);

/* Make everything again, and fail the test unless it is what the engine has: models
 * with their weights, slots, steps, epochs and specifications, members with all that is
 * remembered of their pushes, workers with their incarnations. */
void rebuild_expect(struct rebuild *rebuild, struct harness *harness);

#endif
