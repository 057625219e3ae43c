/* found_models — the models of which there are checkpoints, as a recovery finds and
 * reads them. On one thread at a time: the checkpoints' disk reads, and the engine
 * looks at what it has read.
 */
#ifndef OPTIMD_SERVER_DURABLE_FOUND_MODELS_H
#define OPTIMD_SERVER_DURABLE_FOUND_MODELS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "server/durable/remaking.h"
#include "server/store/checkpoint.h"

struct data_dir;
struct model;

struct found_model {
    uint64_t identity;
    int folder;                           /* of its checkpoints, open */
    char *path;                           /* what that is called */
    struct checkpoint_entry *checkpoints; /* newest first */
    size_t count, at;                     /* the one that is taken */
    struct checkpoint_reader *reader;     /* of that one, or NULL */
    struct remake_table table;            /* its tensors */
    char *name;
    uint64_t step, record; /* of that one */
    uint64_t bytes;        /* of its files */
    bool checkpoints_only; /* it has no entries in the journal */
    bool absent;           /* there is none, or none that is whole: the journal may have
                              all of the model */
    bool passed_over;      /* a later model has its name */
    bool deleted;          /* the journal says so */
    struct model *model;   /* once it has been made again */
};

struct found_models {
    const struct data_dir *dir;
    bool previous; /* older checkpoints are taken where newer ones are damaged */
    struct found_model *list; /* in ascending order of records */
    size_t count;
    uint64_t bytes;        /* of all checkpoints that are taken */
    _Atomic uint64_t read; /* so many of them have been; any thread */
    atomic_bool stopping;  /* nothing more is of use */
};

/* Find them all, without values. OPT_DATA_LOSS, OPT_UNIMPLEMENTED: the newest
 * checkpoint of one cannot be read; the sentence names the file. */
enum opt_status found_models_find(struct found_models *found, struct opt_error *error);
void found_models_fini(struct found_models *found);

/* Open the checkpoint that is taken: its reader and table. */
enum opt_status found_model_open(struct found_model *model, struct opt_error *error);
/* Read its values into the model. OPT_DATA_LOSS: they are not what was written. */
enum opt_status found_model_read(struct found_models *found, struct found_model *model,
                                 struct opt_error *error);
void found_model_close(struct found_model *model);
/* Its checkpoint is damaged, as the error says: take the one before, if that is
 * allowed and there is one that can be opened. */
bool found_model_fall_back(const struct found_models *found, struct found_model *model,
                           const struct opt_error *error);

#endif
