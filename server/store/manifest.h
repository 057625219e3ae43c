/* manifest — all of a model but its values, as JSON and back.
 *
 * What has to be known to go on with a model as if nothing had happened: its
 * specification and policy, steps and epochs, tensors, changes of options, and who is
 * in it with everything that became of their pushes. Read, it is checked as strictly as
 * a message from the network. Any thread.
 */
#ifndef OPTIMD_SERVER_STORE_MANIFEST_H
#define OPTIMD_SERVER_STORE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/spec.h"
#include "common/optim/update.h"
#include "common/status.h"
#include "common/wire.h"
#include "server/rounds/window.h"
#include "server/store/record.h"

enum {
    MANIFEST_FORMAT = 1,
    MANIFEST_NAMES = 64, /* of workers that were lost, at most */
    MANIFEST_CHANGES = 128,
    MANIFEST_MEMBERS = 1 << 20
};

struct manifest_tensor {
    struct opt_tensor_entry
        entry; /* its step: of the last update that could write it */
    struct opt_tensor_counters counters;
};

struct manifest_change {
    uint64_t step; /* the first update with it */
    const char *before, *after;
    const char *change; /* what was asked for; of those still to come */
    bool done;
};

struct manifest_member {
    const char *name;
    struct record_worker worker;
    struct record_member member;
    uint64_t applied, duplicates, refused, resends, dropped;
    const struct window *window;
};

struct manifest_file { /* of a checkpoint; written by checkpoint.h */
    const char *name;
    uint64_t size, xxh3;
};

struct manifest {
    /* Where it belongs. */
    uint64_t directory; /* identity of the data directory */
    uint64_t record;    /* index of the last record that it has; 0: none */
    /* The model. */
    uint64_t identity;
    const char *name;
    const char *created;       /* specification when it was made */
    const char *specification; /* in force for the next update */
    struct opt_consistency consistency;
    enum opt_durability durability;
    uint64_t checkpoint_steps;
    uint64_t step, changed;
    uint64_t epochs_before, epochs_from;
    uint64_t rounds_skipped, pushes_applied, dropped;
    double staleness_sum;
    bool gathered;
    const struct manifest_tensor *tensors;
    size_t tensor_count;
    const char *const *slots; /* names */
    size_t slot_count;
    const struct manifest_change *changes;
    size_t change_count;
    const struct manifest_member *members; /* in ascending byte order of names */
    size_t member_count;
    const char *const *lost; /* the last workers that were lost, oldest first */
    size_t lost_count;
    uint64_t losses; /* so far */
    /* The files: weights, then slots. */
    struct manifest_file files[1 + OPT_SLOTS_MAX];
};

/* As text, to be freed. OPT_RESOURCE_EXHAUSTED; OPT_INVALID_ARGUMENT: a text that is
 * not UTF-8. */
enum opt_status manifest_print(const struct manifest *manifest, char **out,
                               size_t *size, struct opt_error *error);

/* Read a text. path names it in sentences. The manifest is the caller's to free.
 * OPT_DATA_LOSS: not a manifest, or one that contradicts itself; OPT_UNIMPLEMENTED: of
 * a newer format; OPT_RESOURCE_EXHAUSTED. */
enum opt_status manifest_read(const char *text, size_t size, const char *path,
                              struct manifest **out, struct opt_error *error);
/* One that was read; NULL is allowed. */
void manifest_free(struct manifest *manifest);

#endif
