/* remaking — a model comes to be as it was: from a checkpoint's manifest, or from the
 * record of its making.
 *
 * It is made as for a worker who asks for it (server/model/making.h), so that names,
 * limits and memory are what they always are, with the specification that was in force;
 * then it gets what it had come to. Its values come afterwards, from another thread if
 * that is wanted: nobody else touches a model that is being remade.
 *
 *   begin -> go on ... -> values -> ready
 *
 * Used by restoring.h. In the engine's turn, but for values.
 */
#ifndef OPTIMD_SERVER_DURABLE_REMAKING_H
#define OPTIMD_SERVER_DURABLE_REMAKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct engine;
struct letter;
struct mailbox;
struct manifest;
struct model;
struct peer;

/* The table of tensors, as a create sends it. */
struct remake_table {
    uint8_t *data; /* malloc'd */
    size_t size;
};
/* Any thread. False: no memory. */
bool remaking_table(const struct opt_tensor_entry *tensors, size_t count,
                    struct remake_table *out);
bool remaking_table_of(const struct manifest *manifest, struct remake_table *out);

/* What a model is made of; borrowed until it is over. */
struct remake {
    uint64_t identity;
    const char *name;
    const char *specification; /* in force */
    struct opt_consistency consistency;
    enum opt_durability durability;
    uint64_t checkpoint_steps;
    const struct remake_table *table;
    const struct manifest *manifest; /* what it has come to; NULL: nothing yet */
};

enum remade { REMAKING_MORE, REMAKING_BUSY, REMAKING_OVER, REMAKING_FAILED };

struct remaking {
    struct engine *engine;
    struct peer *peer;    /* on whose behalf */
    struct mailbox *home; /* where letters come back to */
    const struct remake *what;
    struct model *model;
    struct letter *letter; /* a create or a set that is on its way, or NULL */
    enum opt_status status;
    struct opt_error error;
    bool made;      /* it is there, and has its identity, */
    size_t changes; /* so many of its changes, */
    bool stated;    /* (one more has been asked for) */
    size_t tensors; /* and counters of so many tensors */
    bool rest;      /* and all the rest */
};

/* Begin. A model of the same name is there no more. */
void remaking_begin(struct remaking *remaking, const struct remake *what);
/* Go on. BUSY: the engine has to go on with what it has begun (settle_busy). FAILED:
 * OPT_RESOURCE_EXHAUSTED with a sentence that says how much of --memory it takes, or
 * another one: then it is not what this daemon could have written. */
enum remade remaking_go_on(struct remaking *remaking, struct opt_error *error);

/* A change is stated for a later update of a model, or for its next one; go on as
 * above. asked, the change, is borrowed until it is over. */
void remaking_state(struct remaking *remaking, struct model *model, const char *asked,
                    uint64_t step);
enum remade remaking_stated(struct remaking *remaking, struct opt_error *error);

/* Values of an array (0: weights, 1: the first slot, ...) of a tensor, from an element
 * on, none of two tensors or shards. Any thread, one at a time. */
void remaking_value(struct model *model, size_t array, size_t tensor, uint64_t element,
                    const float *values, size_t n);

/* A model is no more: it goes from the registry, and its memory some at a time. */
void remaking_undo(struct engine *engine, struct model *model);

#endif
