/* disk — a thread that does what waits for a disk, so that nobody else has to.
 *
 * Jobs are done in the order in which they come. What a job is, its owner knows: a
 * struct that begins with a disk_job. When it is done it waits until the owner collects
 * it, and the owner is told that there is something to collect. When nothing is left to
 * do, the thread asks `drained` whether there is (a sync that serves all jobs before
 * it), and when to ask again.
 *
 *   owner: disk_do -> thread: run, run, run, drained -> owner: disk_collect
 *
 * The thread decides nothing. Jobs come from one thread at a time, and are collected by
 * one.
 */
#ifndef OPTIMD_SERVER_STORE_DISK_H
#define OPTIMD_SERVER_STORE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct disk;

struct disk_job {
    struct disk_job *next;
    /* Do it. True: it can be collected. False: it is kept (disk_done later, in a run or
     * in drained). On the disk's thread. */
    bool (*run)(struct disk *disk, struct disk_job *job);
};

struct disk_settings {
    const char *name; /* of the thread, at most 15 bytes */
    /* There is no job. Returns after how many ns to be called again if none comes;
     * UINT64_MAX: not. On the disk's thread; NULL: nothing is to be done then. */
    uint64_t (*drained)(struct disk *disk, void *context);
    /* Something can be collected that could not before. On the disk's thread. */
    void (*ready)(void *context);
    void *context;
};

/* Start the thread. */
enum opt_status disk_start(const struct disk_settings *settings, struct disk **out,
                           struct opt_error *error);
/* Do what is left, drained included, and end the thread. What is done can still be
 * collected. */
void disk_stop(struct disk *disk);
/* Stopped before, and everything collected; NULL is allowed. */
void disk_free(struct disk *disk);

/* Takes the job. */
void disk_do(struct disk *disk, struct disk_job *job);
/* A job that was kept can be collected. On the disk's thread. */
void disk_done(struct disk *disk, struct disk_job *job);
/* All that can be collected, in the order in which it was done, linked by next; or
 * NULL. */
struct disk_job *disk_collect(struct disk *disk);
/* Have drained called soon, though no job comes. Any thread. */
void disk_rouse(struct disk *disk);

#endif
