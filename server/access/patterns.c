/* patterns — see patterns.h. */
#include "server/access/patterns.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/name.h"
#include "common/optim/glob.h"

static size_t count_parts(const char *text)
{
    size_t count = 1;
    for (; *text != '\0'; text++) {
        count += *text == ',';
    }
    return count;
}

enum opt_status patterns_read(char *text, struct patterns *out, struct opt_error *error)
{
    size_t count = count_parts(text);
    if (count > PATTERNS_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%zu patterns stand in one list; at most %d may", count,
                        PATTERNS_MAX);
    }
    struct opt_glob *globs = calloc(count, sizeof *globs);
    if (globs == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for %zu patterns",
                        count);
    }
    char *part = text;
    for (size_t i = 0; i < count; i++) {
        size_t size = strcspn(part, ",");
        part[size] = '\0';
        enum opt_status status = opt_name_check(part, size, "a pattern", error);
        if (status != OPT_OK) {
            free(globs);
            return status;
        }
        opt_glob_compile(&globs[i], part);
        part += size + 1;
    }
    *out = (struct patterns){ .globs = globs, .count = count };
    return OPT_OK;
}

void patterns_fini(struct patterns *patterns)
{
    free(patterns->globs);
    *patterns = (struct patterns){ NULL, 0 };
}

bool patterns_match(const struct patterns *patterns, const char *name)
{
    uint64_t steps = 0;
    size_t size = strlen(name);
    for (size_t i = 0; i < patterns->count; i++) {
        if (opt_glob_matches(&patterns->globs[i], name, size, &steps)) {
            return true;
        }
    }
    return patterns->count == 0;
}
