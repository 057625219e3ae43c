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

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"
#include "server/base/mailbox.h"
#include "server/engine/commit.h"
#include "server/store/disk.h"

struct data_dir;
struct durable;
struct engine;
struct gate;
struct journaling;
struct recording;
struct recovery;
struct saver;

struct durable_settings {
    struct data_dir *dir;           /* borrowed until the end */
    enum opt_durability durability; /* of models that do not say; not DEFAULT */
    uint32_t interval_ms;           /* between two syncs of the journal */
    uint32_t checkpoint_ms;         /* between two checkpoints of a model; 0: none */
    uint64_t queue_bytes;           /* of records that are not synced yet */
    bool recover_previous;          /* take the checkpoint before a damaged one */
    /* All has come back, or (error) cannot. On the engine's thread. */
    void (*recovered)(void *context, const struct opt_error *error);
    void *context;
};

/* What a room of this folder has a disk's thread do: a struct that begins with it. Of
 * the disk's own part only `run` is set by its maker. */
struct durable_job {
    struct disk_job disk;
    struct durable *durable;
    /* It was done, or is given up because the daemon ends. In the engine's turn; if
     * durable->engine is NULL, there has never been an engine. */
    void (*done)(struct durable *durable, struct durable_job *job);
};

struct durable {
    struct durable_settings settings;
    struct engine *engine;                /* once it has started, until it ends; */
    _Atomic(struct mailbox *) box;        /* its mailbox, for the disks' threads; */
    _Atomic bool done;                    /* these have done something (ready) */
    void (*visit)(struct engine *engine); /* its turn, on the caller's thread if it is
                                             free; written before box */
    struct recorder recorder;
    struct disk *journal_disk, *checkpoint_disk;
    uint64_t recorded; /* index of the last record that was made, */
    uint64_t written;  /* of the last that the system has, so that it outlives this
                          process, */
    uint64_t safe;     /* and of the last that is durable, as far as the engine knows */
    bool degraded;     /* the journal's disk fails, or is full */
    char journal_path[512]; /* what the journal's folder is called */
    /* Each room's own. */
    struct recording *recording;
    struct journaling *journaling;
    struct gate *gate;
    struct saver *saver;
    struct recovery *recovery; /* NULL: it is over */
    _Atomic uint32_t percent;  /* how far that has come; any thread */
};

/* The engine is to collect. The disks' threads. */
static inline void durable_rouse(const struct durable *durable)
{
    struct mailbox *box = atomic_load(&durable->box);
    if (box != NULL) {
        mailbox_rouse(box);
    }
}

/* The same, and best at once: letters wait for it. If the engine's turn is free it
 * collects on the caller's thread, as a loop would have it. The disks' threads. */
static inline void durable_visit(const struct durable *durable)
{
    if (atomic_load(&durable->box) != NULL) {
        durable->visit(durable->engine);
    }
}

/* Open what is kept in the directory and start the disks' threads. Main thread. */
enum opt_status durable_open(const struct durable_settings *settings,
                             struct durable **out, struct opt_error *error);
/* Free everything; the engine has ended, or was never started. Main thread; NULL is
 * allowed. */
void durable_close(struct durable *durable);

/* The engine runs. On its thread, before its first turn. */
void durable_begin(struct durable *durable, struct engine *engine,
                   void (*visit)(struct engine *engine));
/* The engine's thread has ended, and its memory is going to be freed: write what is
 * left, end the disks' threads, and take back what they have. Main thread. */
void durable_end(struct durable *durable);
/* Bytes of memory that the engine uses, at least as many as its models have. Any
 * thread, while it runs. */
uint64_t durable_bytes(const struct durable *durable);
/* Whether a disk has done something that the engine has not collected. Any thread. */
bool durable_has_news(const struct durable *durable);
/* Take what the disks have done, and do what follows from it. */
void durable_collect(struct engine *engine);
/* The engine is stopping, and nothing is in progress: see to it that all that it has
 * decided becomes durable. True once it is, or never will be; what the engine decides
 * from then on is not kept. Until then it is roused when to ask again. */
bool durable_finish(struct engine *engine);

#endif
