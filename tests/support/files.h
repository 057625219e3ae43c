/* files — a folder for a test, and calls on files that fail when they are told to.
 *
 * files_open makes a folder in which a test may do what it likes, files_close removes
 * it. From files_fail on, the n-th call of a kind that the store makes fails, once or
 * from then on: with an errno, or by writing less than it was asked to and then
 * failing.
 */
#ifndef OPTIMD_TESTS_SUPPORT_FILES_H
#define OPTIMD_TESTS_SUPPORT_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct files {
    char path[64];
    int folder;
};

void files_open(struct files *files);
void files_close(struct files *files);

enum files_call {
    FILES_OPEN = 1,
    FILES_WRITE = 2,
    FILES_READ = 4,
    FILES_SYNC = 8,
    FILES_CUT = 16,
    FILES_RENAME = 32,
    FILES_REMOVE = 64,
    FILES_MAKE = 128,
    FILES_CHANGE = 255 & ~FILES_READ,
    FILES_ANY = 255
};
struct files_fault {
    unsigned calls;  /* of these kinds, */
    unsigned at;     /* the so manieth from now on, counted from 1, */
    int code;        /* fails with this; 0: a write is short, and that is all */
    bool stays;      /* and so do all that follow */
    size_t written;  /* a write has written that much before it fails */
    unsigned count;  /* calls of these kinds so far */
    unsigned failed; /* of them */
};
/* Until files_mend; NULL: only that calls are counted. */
void files_fail(struct files_fault *fault);
void files_mend(void);

/* Content of a file in the folder, to be freed. */
uint8_t *files_read(const struct files *files, const char *name, size_t *size);
void files_write(const struct files *files, const char *name, const void *data,
                 size_t size);
bool files_there(const struct files *files, const char *name);
/* Names in a folder of it, "" for itself, one after another with a space between. */
const char *files_names(const struct files *files, const char *inside);

/* Whether the sentence has all these words, separated by '|'. */
bool files_said(const struct opt_error *error, const char *words);

#endif
