/* version — versions of weights that readers hold.
 *
 * A shard's weights are always in exactly one current version. The engine alone takes
 * references (for the pieces of a reply); any thread drops them. When the engine must
 * update a shard whose current version somebody still holds, it writes into a fresh
 * version, otherwise in place; so nobody ever sees a half-written shard, and without
 * readers nothing is copied.
 *
 *   engine: version_new -> current ----- update, held ----> superseded
 *               ^            | version_ref (reply)             |
 *               |            v                                 v  last version_unref
 *   spare of its shard <- version_pool_returned <- returned by whoever read last
 *
 * A pool is what the versions of one model have in common: it keeps the returned ones
 * for the next update, and outlives the model as long as a reader holds a version.
 *
 * If workers of this machine share the model's weights, versions are made in a file in
 * memory (region.h) that has room for a few of each shard, plane by plane: a plane is
 * laid out as the model's flat range is. Those that were made before, and those for
 * which there is no room, are in memory of their own, which is sent.
 */
#ifndef OPTIMD_SERVER_BASE_VERSION_H
#define OPTIMD_SERVER_BASE_VERSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget;
struct region;
struct version;
struct version_pool;

/* Drop one reference; NULL is allowed. Any thread. */
void version_unref(struct version *version);

/* The rest: in the engine's turn. */

/* NULL: no memory. budget (borrowed) must outlive every version. */
struct version_pool *version_pool_new(struct budget *budget);
/* Make versions in region (shares it) from now on: shard number % shard_count at float
 * at[number % shard_count] of each plane of plane_floats. at is copied. False: no
 * memory. Once for a pool. */
bool version_pool_share(struct version_pool *pool, struct region *region,
                        const size_t *at, size_t shard_count, size_t plane_floats);
/* The region, borrowed, or NULL. */
struct region *version_pool_region(const struct version_pool *pool);
/* The model is gone: versions are freed from now on when their last reference is
 * dropped, the pool with the last of them. NULL is allowed. */
void version_pool_close(struct version_pool *pool);
/* Take all versions whose last reference was dropped by readers since the last call,
 * linked by version_next; they have one reference again, the caller's. */
struct version *version_pool_returned(struct version_pool *pool);
struct version *version_next(const struct version *version);

/* A version of count floats, zeros, with one reference, marked with the number of what
 * it is a version of: that of a shard, with a multiple of the count of shards added for
 * views of it, or SIZE_MAX. NULL if the budget or the memory does not allow it. */
struct version *version_new(struct version_pool *pool, size_t count, size_t number);
/* How many versions of the pool there are. */
size_t version_pool_alive(struct version_pool *pool);
/* Free a version of which the caller has the only reference; NULL is allowed. */
void version_free(struct version *version);

float *version_values(struct version *version);
size_t version_number(const struct version *version);
/* Which plane of the pool's region the version is in, or -1. */
int version_plane(const struct version *version);
/* Where values, which are the version's, are in region: false if they are not in it.
 * Any thread. */
bool version_place(const struct version *version, const float *values,
                   const struct region *region, uint64_t *place);
/* One more reference. */
struct version *version_ref(struct version *version);
/* Whether anybody but the caller has a reference. If not, whatever readers did with it
 * has happened before. */
bool version_held(const struct version *version);

#endif
