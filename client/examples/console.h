/* console — what the demos and the gallery say while they run.
 *
 * On a terminal the progress is one line, written again in its place and never longer
 * than the terminal is wide; anywhere else it is a line at first and after 2, 4, 8, ...
 * seconds. The main thread only; one console a program.
 */
#ifndef OPTIMD_EXAMPLES_CONSOLE_H
#define OPTIMD_EXAMPLES_CONSOLE_H

#include <stdbool.h>

/* First of all: the name that failures are told by; borrowed for good. */
void console_open(const char *program);

/* Monotonic, of any origin. */
double console_seconds(void);

/* Whether the next progress would be shown, so soon after the last. */
bool console_wants_progress(void);

/* Parts with three spaces between them, the most important first: on a narrow terminal
 * the last ones are left out. */
__attribute__((format(printf, 1, 2))) void console_progress(const char *format, ...);
/* Progress is over: its line is taken away. */
void console_clear(void);

/* "PROGRAM: " and a sentence to stderr, on a line of its own. Always false, for
 * returning.
 */
__attribute__((format(printf, 1, 2))) bool console_fail(const char *format, ...);

#endif
