/* change — options of a model that runs get other values at a stated step.
 *
 * A change takes effect between two updates, on all tensors at once: when the update
 * before `step` is over, or at once if `step` is the next one. Until then it is listed
 * with those that are to come; afterwards it stays in the list as a record. Everything
 * that can go wrong is found when it is stated. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_MODEL_CHANGE_H
#define OPTIMD_SERVER_MODEL_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optim/change.h"
#include "common/wire.h"

struct engine;
struct model;

struct grouping;
struct letter;

enum {
    CHANGES_KEPT = 64,              /* records of those that have taken effect */
    CHANGES_KEPT_BYTES = 1 << 20,   /* of their texts */
    CHANGES_COMING = 64,            /* that have not */
    CHANGES_COMING_BYTES = 4 << 20, /* of theirs, after which there are no more */
    CHANGES_MAX = CHANGES_KEPT + CHANGES_COMING
};

struct change {
    uint64_t step; /* number of the first update with it */
    struct opt_change what;
    char *asked;               /* the same as a text */
    char *before, *after;      /* canonical specifications */
    struct opt_spec spec;      /* the model's from then on; it has it once it is due */
    struct grouping *grouping; /* of the tensors from then on; a reference */
};

/* A model's, in the order in which they take effect. */
struct changes {
    struct change *list[CHANGES_MAX];
    size_t count;
    size_t done; /* so many of them, from the first, have taken effect */
};

/* A change that is in the list. */
struct stated {
    uint64_t step;    /* the first update with it */
    const char *text; /* the specification from then on; borrowed for the call */
};

/* State the change that a set asks for, of a model that is idle; in pieces, if the
 * tensors come into other groups. Then answer is called, or the letter failed with
 * OPT_INVALID_ARGUMENT, OPT_FAILED_PRECONDITION or OPT_RESOURCE_EXHAUSTED, and nothing
 * has changed. */
void change_state(struct engine *engine, struct model *model, struct letter *letter,
                  void (*answer)(struct engine *engine, struct letter *letter,
                                 const struct stated *stated));

/* One that took effect before, as the next of the model's: what it has come to is what
 * the model has been made with. False: no memory, or no place. */
bool change_restore(struct engine *engine, struct model *model, uint64_t step,
                    const char *before, const char *after);

/* An update is over: what was stated for the next one takes effect. */
void change_due(struct engine *engine, struct model *model);

void change_free_all(struct engine *engine, struct model *model);

#endif
