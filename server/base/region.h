/* region — a file in memory that the daemon and a worker of the same machine both map.
 *
 * There are two kinds. Weights are written here and only read by others: the file is
 * sealed, so that nobody who gets its descriptor can write or resize it. Gradients are
 * written by a worker and only read here: the mapping cannot write, and the file cannot
 * be cut short under it. What a worker writes there is not trusted for longer than one
 * look (update.h, struct opt_contribution).
 *
 * A region is counted: a connection, a letter whose values lie in it, and a model's
 * pool of versions each share it. Its bytes are taken from the budget as a whole, used
 * or not. Any thread.
 */
#ifndef OPTIMD_SERVER_BASE_REGION_H
#define OPTIMD_SERVER_BASE_REGION_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct budget;
struct region;

enum region_kind { REGION_WEIGHTS, REGION_GRADIENTS };

/* Descriptors that regions of each kind may have open, of the ones that are kept back
 * from connections. Those of gradients are open only until they are handed over. */
enum { REGION_FILES_MAX = 24 };

/* A region of size bytes, all zero, with one reference. budget (borrowed) must outlive
 * it. OPT_RESOURCE_EXHAUSTED with a sentence; OPT_UNAVAILABLE if too many files of
 * gradients are on their way: in a moment there will be fewer. */
enum opt_status region_new(enum region_kind kind, size_t size, struct budget *budget,
                           struct region **out, struct opt_error *error);
struct region *region_ref(struct region *region);
/* NULL is allowed. */
void region_unref(struct region *region);

uint8_t *region_base(const struct region *region);
size_t region_size(const struct region *region);

/* The descriptor to hand to a worker, the region's own; -1: it has been closed. */
int region_file(const struct region *region);
/* It has been handed over and nobody else will get it. */
void region_close_file(struct region *region);

#endif
