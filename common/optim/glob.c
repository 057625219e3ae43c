/* glob — see glob.h. */
#include "common/optim/glob.h"

#include <string.h>

static bool continues(unsigned char byte)
{
    return (byte & 0xc0u) == 0x80u;
}

static void set(struct opt_glob_row *row, size_t bit)
{
    row->bits[bit / 64] |= UINT64_C(1) << bit % 64;
}

static bool has(const struct opt_glob_row *row, size_t bit)
{
    return (row->bits[bit / 64] >> bit % 64 & 1u) != 0;
}

static void compile_rows(struct opt_glob *glob)
{
    memset(glob->accepts, 0, sizeof glob->accepts);
    glob->stays = (struct opt_glob_row){ { 0 } };
    glob->goes_on = (struct opt_glob_row){ { 0 } };
    size_t item = 0;
    for (const char *at = glob->pattern; *at != '\0'; at++) {
        if (*at == '*') {
            set(&glob->stays, item);
        } else if (*at == '?') {
            for (size_t byte = 0; byte < 256; byte++) {
                if (!continues((unsigned char)byte)) {
                    set(&glob->accepts[byte], item);
                }
            }
            set(&glob->goes_on, ++item);
        } else {
            set(&glob->accepts[(unsigned char)*at], item++);
        }
    }
    glob->items = item;
    glob->words = item / 64 + 1;
}

void opt_glob_compile(struct opt_glob *glob, const char *pattern)
{
    enum { CHARACTER_BYTES = 4 };
    size_t wildcards = 0, marks = 0, last = 0;
    glob->pattern = pattern;
    glob->size = strlen(pattern);
    glob->head = strcspn(pattern, "*?");
    for (size_t i = glob->head; i < glob->size; i++) {
        bool wild = pattern[i] == '*' || pattern[i] == '?';
        wildcards += wild;
        marks += pattern[i] == '?';
        last = wild ? i : last;
    }
    glob->tail = wildcards == 0 ? 0 : glob->size - last - 1;
    glob->least = glob->size - (wildcards - marks);
    glob->most =
        wildcards > marks ? SIZE_MAX : glob->least + marks * (CHARACTER_BYTES - 1);
    glob->plain = wildcards == 0 || (wildcards == 1 && marks == 0);
    if (!glob->plain) {
        compile_rows(glob);
    }
}

/* All but the head, which is known to match. */
static bool run(const struct opt_glob *glob, const char *name, size_t size,
                uint64_t *steps)
{
    struct opt_glob_row now = { { 0 } };
    size_t words = glob->words;
    set(&now, glob->head);
    for (size_t i = glob->head; i < size; i++) {
        unsigned char byte = (unsigned char)name[i];
        const struct opt_glob_row *accepts = &glob->accepts[byte];
        uint64_t inside = continues(byte) ? ~UINT64_C(0) : 0, carry = 0, any = 0;
        for (size_t w = 0; w < words; w++) {
            uint64_t from = now.bits[w], moved = from & accepts->bits[w];
            uint64_t next = moved << 1 | carry | (from & glob->stays.bits[w]) |
                            (from & glob->goes_on.bits[w] & inside);
            carry = moved >> 63;
            any |= next;
            now.bits[w] = next;
        }
        if (any == 0) {
            *steps += (i + 1 - glob->head) * words;
            return false;
        }
    }
    *steps += (size - glob->head) * words;
    return has(&now, glob->items);
}

bool opt_glob_matches(const struct opt_glob *glob, const char *name, size_t size,
                      uint64_t *steps)
{
    ++*steps;
    if (size < glob->least || size > glob->most ||
        memcmp(name, glob->pattern, glob->head) != 0 ||
        memcmp(name + size - glob->tail, glob->pattern + glob->size - glob->tail,
               glob->tail) != 0) {
        return false;
    }
    return glob->plain || run(glob, name, size, steps);
}

/* How many bytes both begin with, and end with. */
static size_t likeness(const struct opt_glob *glob, const char *name, size_t size)
{
    size_t least = glob->size < size ? glob->size : size, front = 0, back = 0;
    while (front < least && glob->pattern[front] == name[front]) {
        front++;
    }
    while (back < least - front &&
           glob->pattern[glob->size - 1 - back] == name[size - 1 - back]) {
        back++;
    }
    return front + back;
}

const char *opt_glob_nearest(const struct opt_glob *glob, const struct opt_named *names)
{
    enum { LOOKED_AT = 16384 };
    const char *nearest = NULL;
    size_t most = 0;
    for (size_t i = 0; i < names->count && i < LOOKED_AT; i++) {
        size_t size;
        const char *name = names->name(names->of, i, &size);
        size_t alike = likeness(glob, name, size);
        if (nearest == NULL || alike > most) {
            most = alike;
            nearest = name;
        }
    }
    return nearest;
}
