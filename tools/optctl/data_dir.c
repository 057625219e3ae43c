/* data_dir — a data directory that no daemon has: verified and repaired; see
 * commands.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "server/store/inspection.h"
#include "tools/optctl/commands.h"

/* Everything that was found. */
struct report {
    struct ctl *ctl;
    struct found {
        char *path, *text, *name;
        struct finding finding; /* points to these */
    } * list;
    size_t count, damaged, repairable;
    bool memory; /* was there for all of it */
};

static void keep(void *context, const struct finding *finding)
{
    struct report *report = context;
    struct found *more =
        realloc(report->list, (report->count + 1) * sizeof *report->list);
    if (more == NULL) {
        report->memory = false;
        return;
    }
    report->list = more;
    struct found *found = &more[report->count++];
    *found = (struct found){
        .path = strdup(finding->path),
        .text = strdup(finding->text),
        .name = strdup(finding->name != NULL ? finding->name : ""),
        .finding = *finding,
    };
    found->finding.path = found->path;
    found->finding.text = found->text;
    found->finding.name = found->name;
    report->memory = report->memory && found->path != NULL && found->text != NULL &&
                     found->name != NULL;
    report->damaged += finding->status != OPT_OK;
    report->repairable +=
        finding->remedy == REMEDY_CHECKPOINT || finding->remedy == REMEDY_JOURNAL;
}

static void report_free(struct report *report)
{
    for (size_t i = 0; i < report->count; i++) {
        free(report->list[i].path);
        free(report->list[i].text);
        free(report->list[i].name);
    }
    free(report->list);
}

/* Open the directory and look at all of it. An exit status. */
static int inspect(struct ctl *ctl, struct data_dir *dir, struct report *report)
{
    struct opt_error error;
    *report = (struct report){ .ctl = ctl, .memory = true };
    enum opt_status status = data_dir_look(ctl->arguments[0], dir, &error);
    if (status != OPT_OK) {
        int code = ctl_refused(ctl, &error);
        return status == OPT_DATA_LOSS || status == OPT_UNIMPLEMENTED ? EX_DATAERR
                                                                      : code;
    }
    const struct inspector inspector = { .found = keep, .context = report };
    status = inspection_run(dir, &inspector, &error);
    if (status == OPT_OK && !report->memory) {
        status =
            opt_fail(&error, OPT_RESOURCE_EXHAUSTED, "no memory for what was found");
    }
    if (status != OPT_OK) {
        data_dir_close(dir);
        report_free(report);
        return ctl_refused(ctl, &error);
    }
    return EXIT_SUCCESS;
}

static const char *remedy_word(enum remedy remedy)
{
    switch (remedy) {
    case REMEDY_START:
        return "start";
    case REMEDY_CHECKPOINT:
        return "set aside";
    case REMEDY_JOURNAL:
        return "end the journal before it";
    case REMEDY_NONE:
        break;
    }
    return "";
}

static json_t *as_json(const struct report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->count; i++) {
        const struct finding *finding = &report->list[i].finding;
        json_t *entry = json_pack("{s:s, s:b, s:s, s:s}", "path", finding->path, "good",
                                  finding->status == OPT_OK, "text", finding->text,
                                  "remedy", remedy_word(finding->remedy));
        if (list == NULL || json_array_append_new(list, entry) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static void print(const struct report *report)
{
    for (size_t i = 0; i < report->count; i++) {
        const struct finding *finding = &report->list[i].finding;
        printf("%-8s %s: %s\n", finding->status == OPT_OK ? "good" : "DAMAGED",
               finding->path, finding->text);
    }
}

int run_verify(struct ctl *ctl)
{
    struct data_dir dir;
    struct report report;
    int exit_status = inspect(ctl, &dir, &report);
    if (exit_status != EXIT_SUCCESS) {
        return exit_status;
    }
    if (ctl->json) {
        exit_status = ctl_answer(ctl, as_json(&report));
    } else {
        print(&report);
        exit_status = ctl_done(ctl);
    }
    if (exit_status == EXIT_SUCCESS && report.damaged > 0) {
        exit_status = EX_DATAERR;
    }
    data_dir_close(&dir);
    report_free(&report);
    return exit_status;
}

/* "damaged-20261201T015600" */
static void name_folder(char *out, size_t size)
{
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) == NULL ||
        strftime(out, size, "damaged-%Y%m%dT%H%M%S", &utc) == 0) {
        snprintf(out, size, "damaged");
    }
}

static int repair(struct ctl *ctl, const struct data_dir *dir, struct report *report)
{
    struct opt_error error;
    char aside[64];
    name_folder(aside, sizeof aside);
    for (size_t i = 0; i < report->count; i++) {
        struct finding *finding = &report->list[i].finding;
        if (inspection_repair(dir, finding, aside, &error) != OPT_OK) {
            return ctl_refused(ctl, &error);
        }
    }
    if (ctl->json) {
        return ctl_answer(
            ctl, json_pack("{s:o, s:o, s:s}", "repaired", ctl_count(report->repairable),
                           "left", ctl_count(report->damaged - report->repairable),
                           "aside", report->repairable > 0 ? aside : ""));
    }
    printf("%zu repaired; what was damaged is in %s/%s\n", report->repairable,
           dir->path, aside);
    puts("Start optimd with --recover=previous: it says what cannot be had any more.");
    return ctl_done(ctl);
}

int run_repair(struct ctl *ctl)
{
    struct data_dir dir;
    struct report report;
    bool yes = ctl_value(ctl, "yes") != NULL;
    int exit_status = inspect(ctl, &dir, &report);
    if (exit_status != EXIT_SUCCESS) {
        return exit_status;
    }
    if (!ctl->json) {
        print(&report);
    }
    if (yes && report.repairable > 0) {
        exit_status = repair(ctl, &dir, &report);
    } else if (ctl->json) {
        exit_status = ctl_answer(ctl, as_json(&report));
    } else {
        puts(report.repairable == 0 ? "There is nothing that could be repaired."
                                    : "Nothing was changed; with --yes what is damaged "
                                      "is set aside, and the journal ends before it.");
        exit_status = ctl_done(ctl);
    }
    size_t left = report.damaged - (yes ? report.repairable : 0);
    if (exit_status == EXIT_SUCCESS && left > 0) {
        exit_status = EX_DATAERR;
    }
    data_dir_close(&dir);
    report_free(&report);
    return exit_status;
}
