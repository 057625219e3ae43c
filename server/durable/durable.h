/* durable — how far what the engine has decided is safe on disk.
 *
 * The engine hands over what becomes true (recorder.h) and models as they are at a step
 * (saving.h); two threads write it (server/store/disk.h), one the journal, the other
 * one checkpoints, so that neither waits for the other's disk. They decide nothing, and
 * hand back how far they have come. Answers that must not leave before that wait
 * (gate.h). At start everything comes back from there (recovery.h).
 *
 *   commit -> recorder -> journal's thread -> written, durable -> gate -> answers
 *   model  -> saving   -> checkpoints' thread -> a checkpoint is there -> journal drops
 *
 * An engine has one of these, or none: without a data directory nothing is kept. All of
 * it is the engine's, in its turn, but for open and close (main thread, before the
 * engine starts and after it has ended).
 */
#ifndef OPTIMD_SERVER_DURABLE_DURABLE_H
#define OPTIMD_SERVER_DURABLE_DURABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/engine/commit.h"

struct data_dir;
struct disk;
struct engine;
struct gate;
struct journaling;
struct recorder_state;
struct recovery;
struct saver;

/* When a push counts as safe. */
enum durability {
    DURABILITY_DEFAULT,  /* as the daemon's setting says */
    DURABILITY_ALWAYS,   /* when its record has been synced; it is answered then */
    DURABILITY_INTERVAL, /* the same, but it is answered before: a second at most may be
                            lost if the power goes, nothing if the daemon is killed */
    DURABILITY_CHECKPOINT, /* with the next checkpoint: there is no journal of it */
};

struct durable_settings {
    struct data_dir *dir;       /* borrowed until the end */
    enum durability durability; /* of models that do not say */
    uint32_t interval_ms;       /* between two syncs of the journal */
    uint32_t checkpoint_ms;     /* between two checkpoints of a model; 0: none */
    uint64_t queue_bytes;       /* of records that are not synced yet */
    bool recover_previous;      /* take the checkpoint before a damaged one */
};

struct durable {
    struct durable_settings settings;
    struct engine *engine; /* once it has started */
    struct recorder recorder;
    struct disk *journal_disk, *checkpoint_disk;
    uint64_t recorded; /* index of the last record that was handed over */
    uint64_t safe;     /* of the last one that is durable, as far as the engine knows */
    bool degraded;     /* the disk fails, or is full */
    /* Each room's own. */
    struct recorder_state *recording;
    struct journaling *journaling;
    struct gate *gate;
    struct saver *saver;
    struct recovery *recovery; /* NULL: it is over */
};

#endif
