/* journaling — records become durable, on the journal's thread.
 *
 * Records are appended as they come, and stay in memory until they are durable. When
 * there is no other to append, all that were appended are synced together, if somebody
 * waits for one of them (the models of durability ALWAYS, and who asks for it), or if
 * the oldest has waited for the interval; and at once if too much is waiting. So one
 * sync serves all pushes that came while the one before was being done. A thread of its
 * own waits for the disk meanwhile, so that nobody who only wants his record written
 * waits for that.
 *
 *   engine: hand over -> thread: append, append, append, ... -> engine: collect
 *                                          '--> sync --^
 *
 * When the disk fails or is full, what is not durable is appended again in another
 * segment, once at once and then after 100 ms, 200 ms, ... 5 s, until it works; the
 * engine is told (durable->degraded), and the log. Nothing is lost meanwhile but what
 * the recorder drops because there is no room.
 */
#ifndef OPTIMD_SERVER_DURABLE_JOURNALING_H
#define OPTIMD_SERVER_DURABLE_JOURNALING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/status.h"
#include "server/durable/durable.h"

struct journal;

/* A record on its way. Who hands it over fills in all but came_ns, and of the job only
 * done, which is called when the record is durable. */
struct journal_record {
    struct durable_job job;
    uint64_t index;
    uint64_t size; /* bytes of all parts */
    const struct iovec *parts;
    size_t part_count;
    bool wanted;      /* somebody waits until it is durable */
    uint64_t came_ns; /* the thread's */
};

/* The thread starts, and waits for a journal. ready: as of disk_settings. */
enum opt_status journaling_open(struct durable *durable, void (*ready)(void *context),
                                struct opt_error *error);
/* The thread writes and syncs what it has, as far as it can, and ends. What it could
 * not is to be collected as if it were done. */
void journaling_stop(struct durable *durable);
/* Stopped, and all is collected. */
void journaling_close(struct durable *durable);

/* The recovery is over: records follow, the next with the index that the journal is at.
 * Takes the journal. In the engine's turn, or before the engine has started.
 * OPT_RESOURCE_EXHAUSTED. */
enum opt_status journaling_start(struct durable *durable, struct journal *journal,
                                 struct opt_error *error);

/* Hand a record over, with the next index, or a later one if those before are lost. */
void journaling_append(struct durable *durable, struct journal_record *record);
/* Somebody waits until the record is durable. */
void journaling_want(struct durable *durable, uint64_t index);
/* Checkpoints have all that records before this one say. */
void journaling_drop(struct durable *durable, uint64_t before);

/* Whether the thread has come further, or the disk fails or works again; any thread. */
bool journaling_has_news(const struct durable *durable);
/* How far: durable's written, safe and degraded become that. */
void journaling_learn(struct durable *durable);
/* Why it is degraded, "" if it is not; and after how many ms it is tried again. */
uint32_t journaling_why(const struct durable *durable, char *out, size_t size);

struct journal_counts {
    uint64_t records, bytes; /* appended, once or again */
    uint64_t syncs, sync_ns;
    uint64_t failures;
    uint64_t held_bytes, segments; /* of the journal as it is on disk */
};
struct journal_counts journaling_counts(const struct durable *durable);

#endif
