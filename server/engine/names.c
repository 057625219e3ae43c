/* names — see names.h. */
#include "server/engine/names.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/wire.h"

void names_fini(struct names *names)
{
    free(names->slots);
    *names = (struct names){ 0 };
}

/* Where the name is, or the free slot where it would go. */
static size_t place_of(const struct named *slots, size_t capacity, const char *name)
{
    size_t place = (size_t)XXH3_64bits(name, strlen(name)) & (capacity - 1);
    while (slots[place].name != NULL && strcmp(slots[place].name, name) != 0) {
        place = (place + 1) & (capacity - 1);
    }
    return place;
}

void *names_find(const struct names *names, const char *name)
{
    if (names->count == 0) {
        return NULL;
    }
    return names->slots[place_of(names->slots, names->capacity, name)].thing;
}

static bool grow(struct names *names)
{
    size_t capacity = names->capacity == 0 ? 16 : names->capacity * 2;
    struct named *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < names->capacity; i++) {
        if (names->slots[i].name != NULL) {
            slots[place_of(slots, capacity, names->slots[i].name)] = names->slots[i];
        }
    }
    free(names->slots);
    names->slots = slots;
    names->capacity = capacity;
    return true;
}

bool names_add(struct names *names, const char *name, void *thing)
{
    if ((names->count + 1) * 2 > names->capacity && !grow(names)) {
        return false;
    }
    names->slots[place_of(names->slots, names->capacity, name)] =
        (struct named){ .name = name, .thing = thing };
    names->count++;
    return true;
}

void names_remove(struct names *names, const char *name)
{
    if (names->count == 0) {
        return;
    }
    size_t mask = names->capacity - 1;
    size_t hole = place_of(names->slots, names->capacity, name);
    if (names->slots[hole].name == NULL) {
        return;
    }
    names->slots[hole] = (struct named){ 0 };
    names->count--;
    /* What was pushed past the hole must be found again without it. */
    for (size_t i = (hole + 1) & mask; names->slots[i].name != NULL;
         i = (i + 1) & mask) {
        struct named moved = names->slots[i];
        names->slots[i] = (struct named){ 0 };
        names->slots[place_of(names->slots, names->capacity, moved.name)] = moved;
    }
}

size_t names_distance(const char *a, const char *b)
{
    size_t row[OPT_NAME_MAX + 2];
    size_t width = strlen(b);
    if (width > OPT_NAME_MAX) {
        width = OPT_NAME_MAX;
    }
    for (size_t j = 0; j <= width; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= width; j++) {
            size_t best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            if (row[j] + 1 < best) {
                best = row[j] + 1;
            }
            if (row[j - 1] + 1 < best) {
                best = row[j - 1] + 1;
            }
            row[j] = best;
        }
    }
    return row[width];
}

const char *names_nearest(const struct names *names, const char *name)
{
    const char *nearest = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < names->capacity; i++) {
        const char *other = names->slots[i].name;
        if (other == NULL) {
            continue;
        }
        size_t distance = names_distance(name, other);
        /* Equally near ones: the first in byte order, so that answers do not depend on
         * the table. */
        if (distance < least || (distance == least && strcmp(other, nearest) < 0)) {
            least = distance;
            nearest = other;
        }
    }
    return nearest;
}
