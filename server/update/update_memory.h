/* update_memory — what the updates of a model need beside its weights and slots: made
 * with the model, so that an update allocates nothing.
 *
 * In the engine's turn.
 */
#ifndef OPTIMD_SERVER_UPDATE_UPDATE_MEMORY_H
#define OPTIMD_SERVER_UPDATE_UPDATE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

struct engine;
struct model;
struct opt_spec;

/* Bytes that update_memory_init will take for a model, or SIZE_MAX. */
size_t update_memory_bytes(size_t tensors, size_t shards, size_t blocks,
                           size_t scratch_floats);
/* Floats of scratch for the directions of a model whose largest tensor has so many. */
size_t update_memory_scratch(const struct opt_spec *spec, size_t largest);
/* Memory for the updates of a model whose tensors are laid out. */
bool update_memory_init(struct model *model);
/* More scratch, if the specification needs more; false if the budget or the system has
 * no memory for it. Between updates. */
bool update_memory_reserve(struct engine *engine, struct model *model,
                           const struct opt_spec *spec);
void update_memory_fini(struct model *model);

#endif
