/* report — lines that a worker writes and the demo or a person reads.
 *
 * Called by worker.c (print, tell) and demo.c (parse).
 */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[REPORT_KINDS] = {
    [REPORT_STARTED] = "started",     [REPORT_STEP] = "step",
    [REPORT_EVALUATED] = "evaluated", [REPORT_FINISHED] = "finished",
    [REPORT_FAILED] = "failed",
};

/* Length of what snprintf wrote into a line; a cut one still ends in a newline. */
static size_t finish(char out[REPORT_LINE_MAX], int length)
{
    if (length >= REPORT_LINE_MAX) {
        length = REPORT_LINE_MAX - 1;
        out[length - 1] = '\n';
    }
    return (size_t)length;
}

size_t report_print(const struct report *report, char out[REPORT_LINE_MAX])
{
    char text[sizeof report->text];
    snprintf(text, sizeof text, "%s", report->text);
    for (char *p = text; *p != '\0'; p++) {
        *p = *p == '\n' ? ' ' : *p; /* one event, one line */
    }
    return finish(out,
                  snprintf(out, REPORT_LINE_MAX,
                           "%s step=%" PRIu64 " steps=%" PRIu64 " epoch=%" PRIu64
                           " images=%" PRIu64 " held_out=%" PRIu64 " correct=%" PRIu64
                           " parameters=%" PRIu64 " sent=%" PRIu64 " received=%" PRIu64
                           " fingerprint=%" PRIx64 " loss=%.17g text=%s\n",
                           kind_names[report->kind], report->step, report->steps,
                           report->epoch, report->images, report->held_out,
                           report->correct, report->parameters, report->sent,
                           report->received, report->fingerprint, report->loss, text));
}

bool report_parse(const char *line, struct report *out)
{
    struct report report = { 0 };
    char kind[16];
    int end = 0;
    int read = sscanf(
        line,
        "%15s step=%" SCNu64 " steps=%" SCNu64 " epoch=%" SCNu64 " images=%" SCNu64
        " held_out=%" SCNu64 " correct=%" SCNu64 " parameters=%" SCNu64 " sent=%" SCNu64
        " received=%" SCNu64 " fingerprint=%" SCNx64 " loss=%lg text=%n",
        kind, &report.step, &report.steps, &report.epoch, &report.images,
        &report.held_out, &report.correct, &report.parameters, &report.sent,
        &report.received, &report.fingerprint, &report.loss, &end);
    if (read != 12 || end == 0) {
        return false;
    }
    snprintf(report.text, sizeof report.text, "%s", line + end);
    for (int k = 0; k < REPORT_KINDS; k++) {
        if (strcmp(kind, kind_names[k]) == 0) {
            report.kind = (enum report_kind)k;
            *out = report;
            return true;
        }
    }
    return false;
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
    return finish(out, length);
}
