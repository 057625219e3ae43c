/* names — see names.h. */
#include "server/base/names.h"

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

/* ---------------------------------------------------------------- nearness */

enum {
    NEAR = 8,               /* a name that differs in more bytes is not near */
    NEAR_STEPS = 256 << 10, /* of comparing that one question may cost */
    CHARACTER_SETS = 32
};

/* Insertions, deletions and replacements of bytes that make b of a, or NEAR + 1 if they
 * are more. Only the diagonals that so few can reach are looked at. */
static size_t distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t row[OPT_NAME_MAX + 2];
    for (size_t j = 0; j <= b_size; j++) {
        row[j] = j <= NEAR ? j : NEAR + 1;
    }
    for (size_t i = 1; i <= a_size; i++) {
        size_t from = i > NEAR ? i - NEAR : 1;
        size_t until = i + NEAR < b_size ? i + NEAR : b_size;
        size_t diagonal = row[from - 1], least = NEAR + 1;
        row[from - 1] = from == 1 && i <= NEAR ? i : NEAR + 1;
        for (size_t j = from; j <= until; j++) {
            size_t best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best <= NEAR ? best : NEAR + 1;
            least = row[j] < least ? row[j] : least;
        }
        if (least > NEAR && row[from - 1] > NEAR) {
            return NEAR + 1;
        }
    }
    return row[b_size];
}

/* Which bytes a name has, folded into bits: names whose sets differ much are far from
 * each other, which costs a fraction of comparing them. */
static uint32_t character_set(const char *name, size_t size)
{
    uint32_t set = 0;
    for (size_t i = 0; i < size; i++) {
        set |= UINT32_C(1) << ((unsigned char)name[i] % CHARACTER_SETS);
    }
    return set;
}

/* Whether the name can be near at all; *steps is how much looking has cost. */
static bool may_be_near(const char *a, size_t a_size, const char *b, size_t b_size,
                        size_t *steps)
{
    ++*steps;
    if (a_size > b_size + NEAR || b_size > a_size + NEAR) {
        return false;
    }
    *steps += (a_size + b_size) / 8;
    uint32_t differ = character_set(a, a_size) ^ character_set(b, b_size);
    return __builtin_popcount(differ) <= 2 * NEAR;
}

const char *names_nearest(const struct names *names, const char *name, size_t *steps)
{
    const char *nearest = NULL;
    size_t least = NEAR + 1, size = strlen(name);
    *steps = 0;
    for (size_t i = 0; i < names->capacity && *steps < NEAR_STEPS; i++) {
        const char *other = names->slots[i].name;
        size_t other_size = other == NULL ? 0 : strlen(other);
        if (other == NULL || !may_be_near(name, size, other, other_size, steps)) {
            continue;
        }
        *steps += size * (2 * NEAR + 1);
        size_t d = distance(name, size, other, other_size);
        /* Equally near ones: the first in byte order, so that answers do not depend on
         * the table. */
        if (d < least ||
            (d == least && nearest != NULL && strcmp(other, nearest) < 0)) {
            least = d;
            nearest = other;
        }
    }
    return nearest;
}
