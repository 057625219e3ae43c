/* glob — patterns of * and ? against many names.
 *
 * A pattern is compiled once; a name then costs at most a few operations for each of
 * its bytes, however many stars the pattern has. All states that the pattern can be in
 * are the bits of one row, which moves on by one byte of the name at a time. Most names
 * are told apart before, by what the pattern begins and ends with. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_GLOB_H
#define OPTIMD_COMMON_OPTIM_GLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

enum { OPT_GLOB_WORDS = (OPT_NAME_MAX + 1 + 63) / 64 };

/* Bit i of a row: the first i characters of the pattern, stars not counted, have been
 * matched. */
struct opt_glob_row {
    uint64_t bits[OPT_GLOB_WORDS];
};

struct opt_glob {
    const char *pattern; /* borrowed */
    size_t size, head,
        tail;           /* bytes; those before the first and after the last wildcard */
    size_t least, most; /* bytes that a name can have */
    bool plain;         /* nothing but one star between head and tail, or no wildcard */
    size_t items, words; /* characters but stars, and words of a row in use */
    struct opt_glob_row accepts[256]; /* by byte: what may follow */
    struct opt_glob_row stays;        /* whatever byte comes: before a star */
    struct opt_glob_row goes_on;      /* while bytes of one character come: after a ? */
};

/* pattern: well-formed UTF-8 of at most OPT_NAME_MAX bytes, borrowed as long as glob is
 * used. */
void opt_glob_compile(struct opt_glob *glob, const char *pattern);

/* Whether the name matches. *steps grows by what that has cost, in bytes looked at
 * times words of a row. */
bool opt_glob_matches(const struct opt_glob *glob, const char *name, size_t size,
                      uint64_t *steps);

/* Names that somebody has, by number. */
struct opt_named {
    const char *(*name)(const void *of, size_t i, size_t *size);
    const void *of;
    size_t count;
};

/* A name that is near though it does not match: it begins and ends as the pattern does.
 * Of very many names the first are looked at; there must be one. */
const char *opt_glob_nearest(const struct opt_glob *glob,
                             const struct opt_named *names);

#endif
