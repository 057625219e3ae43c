/* drawing — the programs that make pictures: gnuplot and ImageMagick.
 *
 * The main thread only, with SIGCHLD and the signals that end the program blocked, as
 * they are once a cluster has been started.
 */
#ifndef OPTIMD_EXAMPLES_DRAWING_H
#define OPTIMD_EXAMPLES_DRAWING_H

#include <stdbool.h>
#include <stddef.h>

/* Run a program in a folder and wait for it; what it says goes to PROGRAM.log there.
 *
 * argv     its name and arguments, ended by NULL
 * package  of Debian's, that it is in
 * False if it did not succeed within timeout_ms or a signal came meanwhile, which is
 * left for others to take; why then says why. It runs no longer in any case. */
bool drawing_run(const char *directory, const char *const *argv, const char *package,
                 int timeout_ms, char *why, size_t capacity);

#endif
