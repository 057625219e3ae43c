/* talk — a program that measures on request: an order and its answer are a line each.
 *
 * Peers are such programs. The first line that one says is its name and version. None
 * outlives this process. Main thread, and before it makes any client.
 */
#ifndef OPTIMD_TESTS_BENCH_TALK_H
#define OPTIMD_TESTS_BENCH_TALK_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum { TALK_LINE = 160, TALK_WORDS_MAX = 16 };

struct talk {
    pid_t pid;
    FILE *orders, *answers;
};

/* Start a program, by its path and its other words, ended by NULL; what it writes to
 * stderr is dropped. Does not wait for its first line. False if there can be none. */
bool talk_start(struct talk *talk, const char *const *words);
/* Takes one that is zero or did not start. */
void talk_stop(struct talk *talk);

/* An order; does not wait for the answer. */
void talk_say(struct talk *talk, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Its next line, without the end. False, with a sentence, if it ends, takes more than a
 * minute, or says "error: SENTENCE". */
bool talk_hear(struct talk *talk, char line[TALK_LINE], char problem[256]);

#endif
