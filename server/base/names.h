/* names — things that are found by their names: models, workers.
 *
 * A hash table with open addressing; the names belong to the things. In the engine's
 * turn.
 */
#ifndef OPTIMD_SERVER_BASE_NAMES_H
#define OPTIMD_SERVER_BASE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

struct named {
    const char *name;
    void *thing;
};

struct names {
    struct named *slots; /* name NULL: free */
    size_t count, capacity;
};
void names_fini(struct names *names);

/* The thing, or NULL. */
void *names_find(const struct names *names, const char *name);
/* Add a thing whose name is not there; name is borrowed until it is removed. False if
 * there is no memory. */
bool names_add(struct names *names, const char *name, void *thing);
void names_remove(struct names *names, const char *name);
/* The name that differs least from this one, in a few bytes at most, or NULL if none is
 * so near. What it costs has a bound: of very many long names not all are compared.
 * *steps: what it has cost, in single comparisons. */
const char *names_nearest(const struct names *names, const char *name, size_t *steps);

#endif
