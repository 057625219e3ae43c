/* recovery_view — how a recovery looks from outside while it goes on: who is served,
 * and what lists show. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_DURABLE_RECOVERY_VIEW_H
#define OPTIMD_SERVER_DURABLE_RECOVERY_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct durable;
struct engine;
struct letter;
struct opt_model_entry;

/* Whether what the letter asks for must wait until the recovery is over: after how many
 * ms it may be asked again, and a sentence. */
bool recovery_refuses(const struct engine *engine, const struct letter *letter,
                      uint32_t *retry_ms, struct opt_error *error);

bool recovery_is_on(const struct engine *engine);
/* How far it has come, of 100; 100 when it is over. */
uint32_t recovery_percent(const struct durable *durable);
/* Models that are not there again yet: how many, and each of them. Text is borrowed. */
size_t recovery_missing(const struct engine *engine);
struct opt_model_entry recovery_missing_model(const struct engine *engine, size_t i);

#endif
