/* view — the answer to a pull: pieces of published versions.
 *
 * Plain weights are never copied: a piece refers to the current version of its shard.
 * Other views (the training point of classical NAG, slow weights, slots) are computed
 * into versions of their own, shard by shard, and shared by everybody who asks for the
 * same at the same step. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_WEIGHTS_VIEW_H
#define OPTIMD_SERVER_WEIGHTS_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "common/wire.h"

struct engine;
struct letter;
struct model;

/* Check a pull and make the letter's pieces, still without values. After this a
 * push_pull (pinned) cannot fail any more. */
enum opt_status view_plan(struct engine *engine, struct model *model,
                          struct letter *letter, const struct opt_pull *pull,
                          bool pinned, struct opt_error *error);
/* Whether a pull has so many pieces, or of a push_pull (pinned) so many shards, that
 * they are made and reserved one after another before the letter is served: it will be
 * again, and view_plan finds them there. Of an idle model, before anything of the
 * letter has taken effect. */
bool view_plan_ahead(struct engine *engine, struct model *model, struct letter *letter,
                     const struct opt_pull *pull, bool pinned);
/* What view_plan pinned is not needed any more: the letter is answered otherwise. */
void view_unpin(struct model *model, const struct opt_pull *pull);

/* Whether it shows the weights as they are. */
bool view_is_weights(const struct model *model, const struct opt_pull *pull);

/* Whether the elements of a segment that lies in one shard, and names no rows, are in
 * every view what they were after update `since`; false if that is not known. */
bool view_is_unchanged(const struct model *model, const struct opt_segment *segment,
                       uint64_t since);

enum view_progress {
    VIEW_FILLED,  /* every piece has its values */
    VIEW_MORE,    /* about a millisecond of work was done; call again */
    VIEW_STALLED, /* no memory, now */
};
/* Give the pieces their values, or mark them as unchanged since the pull's step.
 * backed: see that readers never stop an update, and give up (VIEW_STALLED, nothing
 * held) if the budget does not allow that. */
enum view_progress view_fill(struct engine *engine, struct model *model,
                             struct letter *letter, const struct opt_pull *pull,
                             bool backed);
/* Before an update changes the weights: give up computed views nobody will ask for. */
void view_outdated(struct model *model);

#endif
