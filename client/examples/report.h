/* report — what a worker of the demo says about its progress, and to whom.
 *
 * One event is one line: for the program that started the worker (report_print and
 * report_parse), or for a person (report_tell). No state; any thread.
 */
#ifndef OPTIMD_EXAMPLES_REPORT_H
#define OPTIMD_EXAMPLES_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum report_kind {
    REPORT_STARTED,   /* the worker has joined the model; text: its optimizer */
    REPORT_STEP,      /* one more round */
    REPORT_EVALUATED, /* `correct` of `held_out` images */
    REPORT_FINISHED,  /* all steps done; `fingerprint` of the weights */
    REPORT_FAILED,    /* text: why */
    REPORT_KINDS
};

struct report {
    enum report_kind kind;
    uint64_t step;        /* updates the model has had */
    uint64_t steps;       /* that it will have had at the end */
    uint64_t epoch;       /* steps in which each image is seen about once */
    uint64_t images;      /* this worker's, to learn from */
    uint64_t held_out;    /* to be evaluated on */
    uint64_t correct;     /* of those */
    uint64_t parameters;  /* of the model */
    uint64_t sent;        /* bytes on the wire so far */
    uint64_t received;    /* likewise */
    uint64_t fingerprint; /* equal weights have equal ones */
    double loss;          /* mean over this worker's images of the round */
    char text[512];
};

enum { REPORT_LINE_MAX = 1024 };

/* A line for report_parse, newline included; returns its length. */
size_t report_print(const struct report *report, char out[REPORT_LINE_MAX]);

/* The reverse, of a line without its newline; false if it is none. */
bool report_parse(const char *line, struct report *out);

/* A sentence for people, newline included; returns its length. */
size_t report_tell(const struct report *report, const char *worker,
                   char out[REPORT_LINE_MAX]);

#endif
