/* recovery_state — where a recovery is, for its own rooms alone: the course
 * (recovery.c), the journal (recovery_journal.c), and who looks on (recovery_view.c).
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_RECOVERY_STATE_H
#define OPTIMD_SERVER_DURABLE_RECOVERY_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/durable/durable.h"
#include "server/durable/found_models.h"
#include "server/durable/journal_batch.h"
#include "server/durable/recovery_end.h"

struct restoring;

enum recovery_stage {
    RECOVERY_FIND,
    RECOVERY_OPEN,    /* the next model's checkpoint */
    RECOVERY_MAKE,    /* that model again */
    RECOVERY_READ,    /* its values */
    RECOVERY_MEMBERS, /* and who is in it */
    RECOVERY_JOURNAL, /* open it */
    RECOVERY_RECORDS, /* make true what it says */
    RECOVERY_END,     /* go on writing behind it */
    RECOVERY_FAILED
};

/* What a disk's thread does for the recovery; one thing at a time each. */
struct reading_job {
    struct durable_job job;
    void (*work)(struct recovery *recovery);
    bool running;
    enum opt_status status;
    struct opt_error error;
};

struct half {
    struct journal_batch batch;
    bool filled;
};

struct recovery {
    struct durable *durable;
    struct restoring *restoring;
    enum recovery_stage stage;
    bool begun; /* with what the stage does */
    struct found_models found;
    size_t at; /* of the models */
    struct reading_job checkpoints, journal;
    struct journal_reading reading;
    struct journal_place place;
    struct opt_error damage; /* of the journal, before its end; OPT_OK: none */
    struct half halves[2];
    size_t filling, taking;
    size_t record, entry; /* of the half that is taken */
    bool entry_begun;
    uint64_t journal_bytes, journal_done;
    struct recovery_end end;
    uint64_t began_ns, told_ns;
    uint64_t records;
};

/* Have a disk's thread do it; job->running until it is done. */
void recovery_start(struct recovery *recovery, struct reading_job *job,
                    struct disk *disk, void (*work)(struct recovery *recovery));
/* Begin with a stage: true, since there is something to do. */
bool recovery_go_to(struct recovery *recovery, enum recovery_stage stage);
/* It is over, and has failed: tell the daemon, with what an operator may do. False. */
bool recovery_fail(struct recovery *recovery, const struct opt_error *why);

#endif
