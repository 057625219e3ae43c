/* forgetting — the folders of models that are deleted.
 *
 * A folder goes when the record that says so is durable, or at once if the model has
 * none: so a daemon that is killed at any time finds the model whole, with the record
 * that deletes it, or not at all. Until it has gone the journal keeps what the model
 * needs. What cannot be removed is tried again. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_FORGETTING_H
#define OPTIMD_SERVER_DURABLE_FORGETTING_H

#include <stdbool.h>
#include <stdint.h>

struct durable;
struct folder;

struct folders {
    struct folder *first;
};

/* Remove a folder, if it is there, once that record is durable (0: now); until then
 * records from `needs` on are needed (0: none). False: no memory; it stays until the
 * next start. */
bool forgetting_add(struct durable *durable, struct folders *folders, uint64_t identity,
                    uint64_t record, uint64_t needs);
/* Begin with those whose record is durable. */
void forgetting_go_on(struct durable *durable, struct folders *folders);
/* The first record that is needed; UINT64_MAX: none. */
uint64_t forgetting_needs(const struct folders *folders);
/* Whether a folder could be removed now, or is being removed. */
bool forgetting_is_busy(const struct durable *durable, const struct folders *folders);
/* The disk's thread has ended: give up what is left. */
void forgetting_close(struct folders *folders);

#endif
