/* describing — all of a model but its values, as it is between two updates, for a
 * checkpoint.
 *
 * Names and shapes never change, so they are copied first, some at a time, whatever the
 * model does. Then what updates change of each tensor is copied, some at a time too,
 * while no update runs; and in one turn, together with the values' snapshot, the rest.
 * Nothing is printed here. What comes out needs the model no more.
 *
 *   begin -> names: go on ... -> counters: go on ... -> take -> manifest -> free
 *            (any time)          (no update runs)
 *
 * In the engine's turn; any thread may read what was taken.
 */
#ifndef OPTIMD_SERVER_DURABLE_DESCRIBING_H
#define OPTIMD_SERVER_DURABLE_DESCRIBING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/store/manifest.h"

struct engine;
struct member;
struct model;

struct description {
    struct manifest manifest; /* whole once it has been taken */
    size_t *starts; /* per tensor: its first element in the model's flat range */
    struct manifest_tensor *tensors;
    char *names;
    uint64_t *shapes;
    const char *slots[OPT_SLOTS_MAX];
    size_t named, counted; /* tensors */
    size_t name_bytes, dimensions;
    void *rest; /* texts, changes, members and windows */
    size_t paid;
};

/* What a worker is to a model, as the journal and checkpoints say it. */
struct record_member describing_member(const struct member *member);

/* Begin to describe a model. OPT_RESOURCE_EXHAUSTED: no memory for it, in the budget or
 * in the system. */
enum opt_status describing_begin(struct engine *engine, const struct model *model,
                                 struct description **out, struct opt_error *error);
/* Copy some names and shapes; true: all are there. */
bool describing_names(struct engine *engine, const struct model *model,
                      struct description *description);
/* Copy some tensors' counters; true: all are there. No update runs from the first call
 * until the description is taken. */
bool describing_counters(struct engine *engine, const struct model *model,
                         struct description *description);
/* Copy all the rest, as it is now: the state after the last record, of the data
 * directory with that identity. OPT_RESOURCE_EXHAUSTED. */
enum opt_status describing_take(struct engine *engine, const struct model *model,
                                struct description *description, uint64_t directory,
                                uint64_t record, struct opt_error *error);
/* NULL is allowed. */
void describing_free(struct engine *engine, struct description *description);

#endif
