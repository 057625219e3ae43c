/* written — copies of what the engine has written down of its updates, with memory of
 * their own. */
#ifndef OPTIMD_TESTS_SUPPORT_WRITTEN_H
#define OPTIMD_TESTS_SUPPORT_WRITTEN_H

#include "server/update/written.h"

struct engine;
struct model;

/* A batch and all that follow it, without the engine's memory. */
struct written *written_copy(const struct written *from);
void written_copy_free(struct written *copy);

/* Make an update again of all its batches, or fail the test. In the engine's turn. */
void written_replay(struct engine *engine, struct model *model,
                    const struct written *first);

#endif
