/* wishes — see wishes.h. */
#include "server/durable/wishes.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/engine/answer.h"
#include "server/engine/state.h"

struct wish {
    struct wish *next;
    struct wishes *of;
    struct letter *letter;
    struct alarm deadline;
    uint64_t cut;
};

void wish_grant(struct engine *engine, struct letter *letter,
                const struct granted *granted)
{
    char folder[128] = "";
    if (granted->name[0] != '\0') {
        snprintf(folder, sizeof folder, "models/%016" PRIx64 "/%s", granted->identity,
                 granted->name);
    }
    answer_start(letter, OPT_MESSAGE_CHECKPOINT)->body.checkpoint =
        (struct opt_checkpoint_reply){ .step = granted->step,
                                       .record = granted->record,
                                       .folder = letter_text(letter, folder) };
    answer_send(engine, letter);
}

/* Take it out of the list; the letter is the caller's again. */
static struct letter *stop(struct engine *engine, struct wish *wish)
{
    struct wish **link = &wish->of->first;
    while (*link != wish) {
        link = &(*link)->next;
    }
    *link = wish->next;
    alarm_cancel(&engine->alarms, &wish->deadline);
    struct letter *letter = wish->letter;
    free(wish);
    return letter;
}

static void on_deadline(struct engine *engine, struct alarm *alarm)
{
    struct wish *wish =
        (struct wish *)(void *)((char *)alarm - offsetof(struct wish, deadline));
    struct letter *letter = stop(engine, wish);
    engine->counters.deadlines_exceeded++;
    answer_fail(engine, letter, OPT_DEADLINE_EXCEEDED, OPT_DETAIL_NOT_DURABLE,
                "the checkpoint of model \"%s\" is not there yet; it is being made all "
                "the same: ask again, or allow more time",
                letter->request.body.checkpoint.model);
}

void wishes_add(struct engine *engine, struct wishes *wishes, struct letter *letter,
                uint64_t cut)
{
    struct wish *wish = calloc(1, sizeof *wish);
    if (wish == NULL || !alarm_set(&engine->alarms, &wish->deadline,
                                   answer_deadline(engine, letter), on_deadline)) {
        free(wish);
        answer_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory to let a request wait");
        return;
    }
    wish->of = wishes;
    wish->letter = letter;
    wish->cut = cut;
    struct wish **link = &wishes->first;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = wish;
}

/* The next that waits for that cut or one before, or NULL. */
static struct letter *next_of(struct engine *engine, struct wishes *wishes,
                              uint64_t cut)
{
    struct wish *wish = wishes->first;
    while (wish != NULL && wish->cut > cut) {
        wish = wish->next;
    }
    return wish == NULL ? NULL : stop(engine, wish);
}

void wishes_grant(struct engine *engine, struct wishes *wishes, uint64_t cut,
                  const struct granted *granted)
{
    for (struct letter *letter; (letter = next_of(engine, wishes, cut)) != NULL;) {
        wish_grant(engine, letter, granted);
    }
}

/* What a file has come to is no answer to what was asked. */
static void tell(const struct opt_error *error, struct opt_error *out)
{
    bool full = error->status == OPT_RESOURCE_EXHAUSTED ||
                error->status == OPT_INVALID_ARGUMENT;
    opt_fail_as(out, full ? error->status : OPT_UNAVAILABLE, OPT_DETAIL_NOT_DURABLE,
                "%s", error->text);
}

void wishes_fail(struct engine *engine, struct wishes *wishes, uint64_t cut,
                 uint32_t retry_ms, const struct opt_error *error)
{
    struct opt_error told;
    tell(error, &told);
    for (struct letter *letter; (letter = next_of(engine, wishes, cut)) != NULL;) {
        answer_refuse_for(engine, letter, retry_ms, &told);
    }
}

void wishes_refuse(struct engine *engine, struct wishes *wishes, enum opt_status status,
                   enum opt_detail detail, const char *why)
{
    while (wishes->first != NULL) {
        answer_fail(engine, stop(engine, wishes->first), status, detail, "%s", why);
    }
}

void wishes_closed(struct engine *engine, struct wishes *wishes,
                   const struct peer *peer)
{
    for (struct wish *wish = wishes->first; wish != NULL;) {
        struct wish *next = wish->next;
        if (wish->letter->peer == peer) {
            answer_nothing(engine, stop(engine, wish));
        }
        wish = next;
    }
}
