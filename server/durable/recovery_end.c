/* recovery_end — see recovery_end.h. */
#include "server/durable/recovery_end.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "common/log.h"
#include "server/durable/found_models.h"
#include "server/store/data_dir.h"
#include "server/store/inspection.h"
#include "server/store/journal_parts.h"

enum { ASIDE_NAME = 64 };

static void name_aside(char out[ASIDE_NAME])
{
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) == NULL ||
        strftime(out, ASIDE_NAME, "damaged-%Y%m%dT%H%M%S", &utc) == 0) {
        snprintf(out, ASIDE_NAME, "damaged");
    }
}

/* ---------------------------------------------------------------- the journal */

/* Go to the end of what is left. */
static enum opt_status read_to_end(struct journal_reader *reader,
                                   struct opt_error *error)
{
    struct journal_head head;
    uint64_t next;
    enum opt_status status =
        journal_reader_seek(reader, journal_reader_first(reader), error);
    while (status == OPT_OK) {
        status = journal_reader_next(reader, &head, error);
        if (status == OPT_DATA_LOSS && journal_reader_gap(reader, &next)) {
            status = journal_reader_seek(reader, next, error);
        }
    }
    return status == OPT_OUT_OF_RANGE ? OPT_OK : status;
}

/* The journal ends before the damage; what follows is kept elsewhere. */
static enum opt_status cut_damage(struct recovery_end *end, const char *aside,
                                  struct opt_error *error)
{
    char name[SEGMENT_NAME];
    uint64_t number, offset;
    journal_reader_where(*end->reader, &number, &offset);
    segment_name(number, name);
    opt_log(OPT_LOG_WARN, "journal_cut",
            "segment=%s offset=%" PRIu64 " aside=%s/%s why=%s", name, offset,
            end->dir->path, aside, end->damage->text);
    const struct finding finding = { .path = end->place.path,
                                     .remedy = REMEDY_JOURNAL,
                                     .name = name,
                                     .offset = offset };
    enum opt_status status = inspection_repair(end->dir, &finding, aside, error);
    if (status != OPT_OK) {
        return status;
    }
    journal_reader_free(*end->reader);
    *end->reader = NULL;
    status = journal_reader_open(&end->place, end->reader, error);
    return status == OPT_OK ? read_to_end(*end->reader, error) : status;
}

static void tell_torn(const struct journal_reader *reader)
{
    const char *segment;
    uint64_t offset, torn = journal_reader_torn(reader, &segment, &offset);
    if (torn > 0) {
        opt_log(OPT_LOG_WARN, "journal_torn",
                "segment=%s offset=%" PRIu64 " bytes=%" PRIu64 " why=%s", segment,
                offset, torn,
                "a record was being written when the daemon ended: it is cut off");
    }
}

/* ---------------------------------------------------------------- folders */

/* Checkpoints that could not be read do not stand in the way of the next start. */
static enum opt_status set_aside(const struct recovery_end *end,
                                 const struct found_model *model, const char *aside,
                                 struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    for (size_t i = 0; i < model->at && i < model->count && status == OPT_OK; i++) {
        const struct finding finding = { .path = model->path,
                                         .remedy = REMEDY_CHECKPOINT,
                                         .model = model->identity,
                                         .name = model->checkpoints[i].name };
        opt_log(OPT_LOG_WARN, "checkpoint_set_aside", "checkpoint=%s/%s aside=%s/%s",
                model->path, model->checkpoints[i].name, end->dir->path, aside);
        status = inspection_repair(end->dir, &finding, aside, error);
    }
    return status;
}

static enum opt_status tidy(const struct recovery_end *end, const char *aside,
                            struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    for (size_t i = 0; i < end->found->count && status == OPT_OK; i++) {
        const struct found_model *model = &end->found->list[i];
        if (model->deleted) {
            status = data_dir_forget(end->dir, model->identity, error);
        } else {
            status = set_aside(end, model, aside, error);
        }
    }
    return status;
}

enum opt_status recovery_end_write(struct recovery_end *end, struct opt_error *error)
{
    char aside[ASIDE_NAME];
    enum opt_status status = OPT_OK;
    name_aside(aside);
    if (end->damage != NULL) {
        status = cut_damage(end, aside, error);
    }
    if (status == OPT_OK) {
        tell_torn(*end->reader);
        uint64_t behind = journal_reader_index(*end->reader);
        end->next = end->next > behind ? end->next : behind;
        status = journal_open(*end->reader, end->next, JOURNAL_SEGMENT_BYTES,
                              &end->journal, error);
    }
    return status == OPT_OK ? tidy(end, aside, error) : status;
}
