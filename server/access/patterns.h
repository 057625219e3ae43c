/* patterns — a list of name patterns, as operators write it: "mnist-*,embedding".
 *
 * `*` stands for any characters and `?` for one, as in groups of tensors. A name has to
 * match one of them. Made once, then only read. Any thread.
 */
#ifndef OPTIMD_SERVER_ACCESS_PATTERNS_H
#define OPTIMD_SERVER_ACCESS_PATTERNS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

struct opt_glob;

enum { PATTERNS_MAX = 64 /* of one list */ };

struct patterns {
    struct opt_glob *globs;
    size_t count; /* 0: nothing was said, and every name matches */
};

/* Cut text at its commas; it is changed, and borrowed as long as out is used. *out is
 * empty before. OPT_INVALID_ARGUMENT, OPT_RESOURCE_EXHAUSTED, with a sentence. */
enum opt_status patterns_read(char *text, struct patterns *out,
                              struct opt_error *error);
void patterns_fini(struct patterns *patterns);

/* Whether a name is meant. */
bool patterns_match(const struct patterns *patterns, const char *name);

#endif
