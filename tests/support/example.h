/* example — one of the example programs, run as a person would: what it says, how it
 * ends, and what it leaves behind. For test_demo.c and test_gallery.c; one run at a
 * time. */
#ifndef OPTIMD_TESTS_SUPPORT_EXAMPLE_H
#define OPTIMD_TESTS_SUPPORT_EXAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { EXAMPLE_TEXT_MAX = 1 << 16 };

/* The present run. */
struct example {
    pid_t pid;
    int fd;                      /* both its streams */
    char text[EXAMPLE_TEXT_MAX]; /* what it has said so far */
    size_t length;
    char out[64]; /* a folder for what it makes */
};
extern struct example example;

/* Before and after each test. */
void example_make_folder(void);
void example_remove_folder(void);

/* The path of something that was built. */
const char *example_built(const char *name);

/* Start a program of client/examples with `--daemon OPTIMD --out FOLDER` and these
 * arguments, which end with NULL. */
void example_start(const char *name, const char *const *more);

/* Read until these words have come; NULL: until the end. */
void example_read_until(const char *words);

/* Wait for its end; its status as waitpid's. */
int example_finish(void);

/* It ended with this status and said these words; otherwise the test fails. */
void example_expect(int exit_status, const char *words);

/* Nothing that it started still runs. */
void example_expect_no_process(void);

/* Files in its folder whose names begin so. */
size_t example_count_files(const char *beginning);

#endif
