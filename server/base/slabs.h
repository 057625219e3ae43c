/* slabs — memory for what somebody else holds for a while, and gives back.
 *
 * Each slab is taken from the budget before it is allocated. What comes back is kept
 * for the next one who needs about as much, because the first touch of new memory
 * costs more than to fill it; what nobody needs for a while is freed. One slab can be
 * reserved: it is always there, in use or not, so whoever finds it in use needs only
 * wait until it comes back. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_BASE_SLABS_H
#define OPTIMD_SERVER_BASE_SLABS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget;

struct slab {
    struct slab *next; /* among those that nobody uses */
    struct slabs *of;
    uint8_t *bytes; /* 64-byte aligned */
    size_t size;
    size_t references; /* 0: nobody uses it */
    unsigned idle;     /* slabs that have been taken since it was last used */
};

/* owner: of whoever gives slabs back to find. NULL: no memory. */
struct slabs *slabs_new(struct budget *budget, void *owner);
/* No more are taken. What is still in use is freed when it comes back, and then the
 * rest. NULL is allowed. */
void slabs_close(struct slabs *slabs);
/* The owner; NULL: they are closed. */
void *slabs_owner(const struct slabs *slabs);

/* Have one slab of at least so many bytes for ever; false: no memory. */
bool slabs_reserve(struct slabs *slabs, size_t size);
/* Of at least so many bytes, with one reference; NULL: no memory, and the reserved one
 * is in use or too small. */
struct slab *slabs_take(struct slabs *slabs, size_t size);
struct slab *slab_ref(struct slab *slab);
/* NULL is allowed. */
void slab_unref(struct slab *slab);
/* Free what nobody uses and is not reserved. NULL is allowed. */
void slabs_trim(struct slabs *slabs);
/* Free about so many bytes of what nobody uses, reserved or not: no more are taken.
 * Returns how many; 0: there is nothing. NULL is allowed. */
size_t slabs_cut(struct slabs *slabs, size_t most);

#endif
