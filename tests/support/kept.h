/* kept — an engine whose models are kept on disk, in a folder of the test's, and a disk
 * that waits or fails when it is told to.
 */
#ifndef OPTIMD_TESTS_SUPPORT_KEPT_H
#define OPTIMD_TESTS_SUPPORT_KEPT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "server/durable/durable.h"
#include "server/store/data_dir.h"
#include "server/store/record.h"
#include "tests/support/engine_harness.h"
#include "tests/support/files.h"

struct kept {
    struct files files;
    struct data_dir dir;
    struct durable *durable;
    struct harness harness;
    uv_sem_t recovered;
    struct opt_error error; /* of that */
};

/* ALWAYS, an hour between two syncs that nobody asks for, 256 MiB. */
struct durable_settings kept_settings(void);
void kept_open(struct kept *kept, struct durable_settings settings);
/* Stop the engine and all; the folder stays, for kept_count, or for another start. */
void kept_stop(struct kept *kept);
void kept_start(struct kept *kept, struct durable_settings settings);
void kept_close(struct kept *kept);

/* The disk: how often it was made to keep what it has; let it wait with that until it
 * is told to go on; let it fail, from now on, or so often, until it is mended. */
unsigned disk_syncs(void);
void disk_hold(void);
/* Wait until the disk is being waited for. */
void disk_await_held(void);
void disk_go_on(void);
void disk_fail(int code, unsigned times);
void disk_mend(void);

/* The same of the checkpoints' thread alone: let it wait before its next call, until
 * disk_go_on; let the so manieth of its calls from now on fail (0: none). */
void disk_hold_saving(void);
void disk_fail_saving(int code, unsigned at);
unsigned disk_saving_calls(void);
/* And of the journal's threads alone. */
void disk_fail_journal(int code, unsigned at);
unsigned disk_journal_calls(void);

/* Entries of a kind in the journal of an engine that was stopped. */
size_t kept_count(const struct kept *kept, enum record_kind kind);

#endif
