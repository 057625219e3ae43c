/* report — the lines between the demo and its workers. */
#include "client/examples/report.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const struct report full = {
    .kind = REPORT_STEP,
    .step = 12,
    .steps = UINT64_MAX,
    .epoch = 11,
    .images = 360,
    .held_out = 361,
    .correct = 350,
    .parameters = 17226,
    .sent = 1,
    .received = 1ULL << 63,
    .fingerprint = 0x0123456789abcdefULL,
    .loss = 0.1,
    .text = "adam(lr=0.003) + cosine(1100)",
};

Test(report, comes_back_as_it_went)
{
    for (int kind = 0; kind < REPORT_KINDS; kind++) {
        struct report sent = full, got;
        sent.kind = (enum report_kind)kind;
        char line[REPORT_LINE_MAX];
        size_t length = report_print(&sent, line);
        cr_assert_eq(length, strlen(line));
        cr_assert_eq(line[length - 1], '\n');
        line[length - 1] = '\0';
        cr_assert(report_parse(line, &got), "%s", line);
        cr_assert_eq(got.kind, sent.kind);
        cr_assert(got.step == sent.step && got.steps == sent.steps);
        cr_assert(got.epoch == sent.epoch && got.images == sent.images);
        cr_assert(got.held_out == sent.held_out && got.correct == sent.correct);
        cr_assert(got.parameters == sent.parameters && got.sent == sent.sent);
        cr_assert(got.received == sent.received && got.fingerprint == sent.fingerprint);
        cr_assert_float_eq(got.loss, sent.loss, 0);
        cr_assert_str_eq(got.text, sent.text);
    }
}

Test(report, is_one_line_however_long_its_text_is)
{
    struct report sent = full, got;
    memset(sent.text, 'x', sizeof sent.text - 1);
    sent.text[sizeof sent.text - 1] = '\0';
    sent.text[10] = '\n';
    char line[REPORT_LINE_MAX];
    size_t length = report_print(&sent, line);
    cr_assert_eq(strchr(line, '\n'), line + length - 1);
    line[length - 1] = '\0';
    cr_assert(report_parse(line, &got));
    cr_assert_eq(strlen(got.text), sizeof sent.text - 1);

    length = report_tell(&sent, "worker-0", line);
    cr_assert_eq(line[length - 1], '\n');
}

Test(report, refuses_lines_that_are_none)
{
    char line[REPORT_LINE_MAX], cut[REPORT_LINE_MAX];
    struct report got;
    report_print(&full, line);
    size_t text = (size_t)(strstr(line, "text=") - line) + strlen("text=");
    for (size_t length = 0; length < text; length++) {
        memcpy(cut, line, length);
        cut[length] = '\0';
        cr_assert(!report_parse(cut, &got), "\"%s\"", cut);
    }
    memcpy(line, "stop", 4);
    cr_assert(!report_parse(line, &got));
    cr_assert(!report_parse("step 12", &got));
}

Test(report, tells_a_person_what_matters)
{
    char line[REPORT_LINE_MAX];
    struct report report = full;
    report.steps = 1100;
    report.sent = 2500000;
    report_tell(&report, "worker-3", line);
    cr_assert_not_null(
        strstr(line, "worker-3: step 12 of 1100, loss 0.1000, 2.5 MB sent"), "%s",
        line);
    report.kind = REPORT_EVALUATED;
    report_tell(&report, "worker-0", line);
    cr_assert_not_null(strstr(line, "96.95 % of 361"), "%s", line);
    report.kind = REPORT_FAILED;
    snprintf(report.text, sizeof report.text, "cannot connect");
    report_tell(&report, "worker-0", line);
    cr_assert_str_eq(line, "worker-0: cannot connect\n");
}
