/* data_dir — the directory that belongs to one daemon alone.
 *
 *   DIR/lock                        held by the daemon that has it
 *   DIR/format                      what this is: format and identity
 *   DIR/journal/                    journal_file.h
 *   DIR/models/<identity>/          checkpoint.h
 *
 * Main thread; the rest reads what is opened.
 */
#ifndef OPTIMD_SERVER_STORE_DATA_DIR_H
#define OPTIMD_SERVER_STORE_DATA_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { DATA_DIR_FORMAT = 1, DATA_DIR_MODEL = 17 };

struct data_dir {
    char *path;
    int lock, folder, journal, models;
    uint64_t identity; /* random, of this directory */
    bool fresh;        /* it has just been made: there was nothing in it */
};

/* Create path if it is missing (mode 0700), lock it, and make what has to be in it.
 * The lock is held until data_dir_close, or the process ends however it may. What was
 * left half written by a daemon that was killed is removed. OPT_UNAVAILABLE: another
 * daemon has it; OPT_PERMISSION_DENIED: nothing can be written there; OPT_NOT_FOUND: it
 * cannot be created; OPT_DATA_LOSS: what is there is not a data directory, or damaged;
 * OPT_UNIMPLEMENTED: one of a newer format. */
enum opt_status data_dir_open(const char *path, struct data_dir *out,
                              struct opt_error *error);
/* The same of one that is there, for who looks into it while no daemon has it: nothing
 * is made or removed. OPT_NOT_FOUND; OPT_DATA_LOSS: no data directory, or a part of it
 * is missing. */
enum opt_status data_dir_look(const char *path, struct data_dir *out,
                              struct opt_error *error);
void data_dir_close(struct data_dir *dir);

/* Bytes that may still be written there. */
enum opt_status data_dir_space(const struct data_dir *dir, uint64_t *out,
                               struct opt_error *error);

/* The identities of models that have a folder; to be freed. */
enum opt_status data_dir_models(const struct data_dir *dir, uint64_t **out,
                                size_t *count, struct opt_error *error);
/* Open the folder of a model's checkpoints, make it if it is missing. path, to be
 * freed, is what it is called. OPT_NOT_FOUND without make. */
enum opt_status data_dir_model(const struct data_dir *dir, uint64_t identity, bool make,
                               int *folder, char **path, struct opt_error *error);
/* Remove the folder of a model that is gone, and what is in it. */
enum opt_status data_dir_forget(const struct data_dir *dir, uint64_t identity,
                                struct opt_error *error);

#endif
