/* wishes — letters that ask for a checkpoint of a model and wait until it is there.
 *
 * Each waits for a checkpoint of a cut of the model that has what was true when it
 * came: that one, or any later one. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_WISHES_H
#define OPTIMD_SERVER_DURABLE_WISHES_H

#include <stdint.h>

#include "common/status.h"

struct engine;
struct letter;
struct peer;
struct wish;

struct wishes { /* of one model */
    struct wish *first;
};

/* A checkpoint of a model that is there. */
struct granted {
    uint64_t identity; /* of the model */
    uint64_t step, record;
    const char *name; /* of its folder; "": none yet */
};
/* Answer a letter at once. */
void wish_grant(struct engine *engine, struct letter *letter,
                const struct granted *granted);

/* Takes the letter, which waits for the cut of that number; or fails it. */
void wishes_add(struct engine *engine, struct wishes *wishes, struct letter *letter,
                uint64_t cut);
/* A checkpoint of that cut is there; or it could not be made, and will be tried again.
 */
void wishes_grant(struct engine *engine, struct wishes *wishes, uint64_t cut,
                  const struct granted *granted);
void wishes_fail(struct engine *engine, struct wishes *wishes, uint64_t cut,
                 uint32_t retry_ms, const struct opt_error *error);
/* All end with this. */
void wishes_refuse(struct engine *engine, struct wishes *wishes, enum opt_status status,
                   enum opt_detail detail, const char *why);
/* The letters of this peer are given back. */
void wishes_closed(struct engine *engine, struct wishes *wishes,
                   const struct peer *peer);

#endif
