/* memory — the engine's large memory, and the budget that bounds it.
 *
 * Weights, slots and scratch are 64-byte aligned and start as zeros; from a few pages
 * on they are mapped, and from 2 MiB on aligned and advised for huge pages, so that
 * memory which is never touched is never resident. Everything large is taken from the
 * budget before it is allocated. The engine takes; giving back is for any thread.
 */
#ifndef OPTIMD_SERVER_BASE_MEMORY_H
#define OPTIMD_SERVER_BASE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* size bytes of zeros, 64-byte aligned; NULL if there is no memory or size is 0. */
void *memory_new(size_t size);
/* Free what memory_new(size) returned; NULL is allowed. */
void memory_free(void *memory, size_t size);
/* Free about most bytes of its end, or all if it is small; returns what is left, of
 * which the same is true. */
size_t memory_cut(void *memory, size_t size, size_t most);

/* *out = a * b, or a + b; false if it does not fit. */
bool size_multiply(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);

struct budget {
    size_t limit;
    _Atomic size_t used; /* never more than limit */
};
void budget_init(struct budget *budget, size_t limit);
/* Reserve size bytes; false, and nothing reserved, if fewer are left. */
bool budget_take(struct budget *budget, size_t size);
void budget_give(struct budget *budget, size_t size);
size_t budget_used(const struct budget *budget);
size_t budget_left(const struct budget *budget);

#endif
