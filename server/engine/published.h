/* published — versions of weights that readers hold.
 *
 * A shard's weights are always in exactly one current version. The engine alone takes
 * references (for the pieces of a reply); any thread drops them. When the engine must
 * update a shard whose current version somebody still holds, it writes into a fresh
 * version, otherwise in place; so nobody ever sees a half-written shard, and without
 * readers nothing is copied.
 */
#ifndef OPTIMD_SERVER_ENGINE_PUBLISHED_H
#define OPTIMD_SERVER_ENGINE_PUBLISHED_H

#include <stdbool.h>
#include <stddef.h>

struct version;

/* Drop one reference; NULL is allowed. Any thread. */
void version_unref(struct version *version);

#endif
