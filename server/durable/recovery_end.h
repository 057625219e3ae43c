/* recovery_end — what a recovery that has succeeded changes on disk: nothing before.
 *
 * What is damaged is set aside, if the operator has said that it goes on without; the
 * torn tail of the journal is cut, and a new segment begun behind it; folders of models
 * that were deleted go. On the journal disk's thread.
 */
#ifndef OPTIMD_SERVER_DURABLE_RECOVERY_END_H
#define OPTIMD_SERVER_DURABLE_RECOVERY_END_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "server/store/journal_file.h"

struct data_dir;
struct found_models;

struct recovery_end {
    const struct data_dir *dir;
    struct journal_place place;
    const struct found_models *found;
    struct journal_reader **reader; /* at the end, or where the damage is */
    const struct opt_error *damage; /* NULL: there is none */
    uint64_t next;                  /* index of the next record, at least */
    struct journal *journal;        /* becomes that */
    bool save_all; /* what has been recovered is not what the journal says */
};

enum opt_status recovery_end_write(struct recovery_end *end, struct opt_error *error);

#endif
