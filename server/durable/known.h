/* known — which models a recovery knows, by their identities, and of which record what
 * it knows of workers is. For restoring.h alone. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_KNOWN_H
#define OPTIMD_SERVER_DURABLE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/names.h"

struct model;
struct replaying;

/* A model that the journal may speak of. */
struct known_model {
    uint64_t identity;
    struct model *model; /* NULL: it is no more, or never was known */
    uint64_t record;     /* the last that it has already; of one that is not known: the
                            first that speaks of it */
    bool passed_over;    /* nothing more of it is looked at */
    bool deleted;        /* as the journal says */
    struct replaying *replaying;
    uint64_t skipped; /* the record in which pushes of it were last skipped */
};

struct known_models {
    struct known_model *list; /* in ascending order of their identities */
    size_t count, capacity;
};
/* NULL: there is none. Until the next is made. */
struct known_model *known_model_find(const struct known_models *models,
                                     uint64_t identity);
/* The one with that identity, made if it is not there; NULL: no memory. */
struct known_model *known_model(struct known_models *models, uint64_t identity,
                                uint64_t record);
void known_models_fini(struct known_models *models);

struct known_workers {
    struct names names; /* struct known_worker */
    struct known_worker *first;
};
/* Whether what this record says of a worker is news, which it is unless something is
 * known of a later one; it is known then. *known false: no memory. */
bool known_worker_news(struct known_workers *workers, const char *name, uint64_t record,
                       bool *known);
void known_workers_fini(struct known_workers *workers);

#endif
