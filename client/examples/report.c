/* report — lines that a worker writes and the demo or a person reads.
 *
 * Called by worker.c (print, tell) and demo.c (parse).
 */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[REPORT_KINDS] = {
    [REPORT_STARTED] = "started",     [REPORT_STEP] = "step",
    [REPORT_EVALUATED] = "evaluated", [REPORT_FINISHED] = "finished",
    [REPORT_FAILED] = "failed",
};

/* The numbers of a line, in their order. */
static const struct {
    const char *name;
    size_t offset; /* of a uint64_t in struct report */
} numbers[] = {
    { "step", offsetof(struct report, step) },
    { "steps", offsetof(struct report, steps) },
    { "epoch", offsetof(struct report, epoch) },
    { "images", offsetof(struct report, images) },
    { "held_out", offsetof(struct report, held_out) },
    { "correct", offsetof(struct report, correct) },
    { "parameters", offsetof(struct report, parameters) },
    { "sent", offsetof(struct report, sent) },
    { "received", offsetof(struct report, received) },
    { "fingerprint", offsetof(struct report, fingerprint) },
};

enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

/* Length of what snprintf wrote into a line from `at` on; a cut one still ends in a
 * newline. */
static size_t finish(char out[REPORT_LINE_MAX], size_t at, int length)
{
    at += (size_t)length;
    if (at >= REPORT_LINE_MAX) {
        at = REPORT_LINE_MAX - 1;
        out[at - 1] = '\n';
    }
    return at;
}

size_t report_print(const struct report *report, char out[REPORT_LINE_MAX])
{
    char text[sizeof report->text];
    snprintf(text, sizeof text, "%s", report->text);
    for (char *p = text; *p != '\0'; p++) {
        *p = *p == '\n' ? ' ' : *p; /* one event, one line */
    }
    size_t at = (size_t)snprintf(out, REPORT_LINE_MAX, "%s", kind_names[report->kind]);
    for (size_t i = 0; i < NUMBERS; i++) {
        uint64_t number;
        memcpy(&number, (const char *)report + numbers[i].offset, sizeof number);
        at += (size_t)snprintf(out + at, REPORT_LINE_MAX - at, " %s=%" PRIu64,
                               numbers[i].name, number);
    }
    return finish(out, at,
                  snprintf(out + at, REPORT_LINE_MAX - at, " loss=%.17g text=%s\n",
                           report->loss, text));
}

/* Step over these words. */
static bool skip(const char **at, const char *words)
{
    size_t length = strlen(words);
    if (strncmp(*at, words, length) != 0) {
        return false;
    }
    *at += length;
    return true;
}

static bool parse_number(const char **at, const char *name, uint64_t *out)
{
    if (!skip(at, " ") || !skip(at, name) || !skip(at, "=") || **at < '0' ||
        **at > '9') {
        return false;
    }
    char *end;
    errno = 0;
    *out = strtoull(*at, &end, 10);
    *at = end;
    return errno == 0;
}

static bool parse_kind(const char **at, enum report_kind *out)
{
    for (int k = 0; k < REPORT_KINDS; k++) {
        size_t length = strlen(kind_names[k]);
        if (strncmp(*at, kind_names[k], length) == 0 && (*at)[length] == ' ') {
            *at += length;
            *out = (enum report_kind)k;
            return true;
        }
    }
    return false;
}

bool report_parse(const char *line, struct report *out)
{
    struct report report = { 0 };
    const char *at = line;
    if (!parse_kind(&at, &report.kind)) {
        return false;
    }
    for (size_t i = 0; i < NUMBERS; i++) {
        uint64_t number;
        if (!parse_number(&at, numbers[i].name, &number)) {
            return false;
        }
        memcpy((char *)&report + numbers[i].offset, &number, sizeof number);
    }
    if (!skip(&at, " loss=")) {
        return false;
    }
    char *end;
    report.loss = strtod(at, &end);
    if (end == at) {
        return false;
    }
    at = end;
    if (!skip(&at, " text=")) {
        return false;
    }
    snprintf(report.text, sizeof report.text, "%s", at);
    *out = report;
    return true;
}

size_t report_tell(const struct report *report, const char *worker,
                   char out[REPORT_LINE_MAX])
{
    int length = 0;
    switch (report->kind) {
    case REPORT_STARTED:
        length = snprintf(out, REPORT_LINE_MAX,
                          "%s: %" PRIu64 " images, %" PRIu64
                          " parameters, step %" PRIu64 " of %" PRIu64 ", %s\n",
                          worker, report->images, report->parameters, report->step,
                          report->steps, report->text);
        break;
    case REPORT_STEP:
        length = snprintf(out, REPORT_LINE_MAX,
                          "%s: step %" PRIu64 " of %" PRIu64
                          ", loss %.4f, %.1f MB sent, %.1f MB received\n",
                          worker, report->step, report->steps, report->loss,
                          (double)report->sent / 1e6, (double)report->received / 1e6);
        break;
    case REPORT_EVALUATED:
        length = snprintf(
            out, REPORT_LINE_MAX,
            "%s: step %" PRIu64 ": %.2f %% of %" PRIu64 " held-out images are right\n",
            worker, report->step,
            100 * (double)report->correct / (double)report->held_out, report->held_out);
        break;
    case REPORT_FINISHED:
        length = snprintf(out, REPORT_LINE_MAX,
                          "%s: finished at step %" PRIu64 ", weights %016" PRIx64 "\n",
                          worker, report->step, report->fingerprint);
        break;
    case REPORT_FAILED:
    case REPORT_KINDS:
        length = snprintf(out, REPORT_LINE_MAX, "%s: %s\n", worker, report->text);
        break;
    }
    return finish(out, 0, length);
}
