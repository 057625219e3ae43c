/* closing — see closing.h. */
#include "server/rounds/closing.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/status.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"
#include "server/update/written.h"
#include "server/workers/worker.h"

enum { NAMES_SHOWN = 8 };

/* ---------------------------------------------------------------- what is due */

/* A worker whose pushes others may have to wait for. */
static bool is_waited_for(const struct member *member)
{
    return member->joined && !member->resting;
}

/* The samples of all complete pushes. */
static uint64_t samples_here(const struct model *model)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        for (const struct push *push = model->members[i]->first; push != NULL;
             push = push->next) {
            if (__builtin_add_overflow(sum, push->head.samples, &sum)) {
                return UINT64_MAX;
            }
        }
    }
    return sum;
}

uint64_t closing_slowest(const struct model *model)
{
    uint64_t slowest = UINT64_MAX;
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        if (is_waited_for(member) && member->clock < slowest) {
            slowest = member->clock;
        }
    }
    return slowest == UINT64_MAX ? 0 : slowest;
}

static bool is_within_bound(const struct model *model, const struct member *member,
                            uint64_t slowest)
{
    uint64_t after = member->clock + 1;
    return model->active == 0 || after <= slowest ||
           after - slowest <= model->consistency.staleness;
}

static struct member *first_within_bound(const struct model *model)
{
    uint64_t slowest = closing_slowest(model);
    struct member *found = NULL;
    for (size_t i = 0; i < model->member_count; i++) {
        struct member *member = model->members[i];
        if (member->first != NULL && (found == NULL || member->clock < found->clock) &&
            is_within_bound(model, member, slowest)) {
            found = member;
        }
    }
    return found;
}

static struct member *first_with_push(const struct model *model)
{
    for (size_t i = 0; i < model->member_count; i++) {
        if (model->members[i]->first != NULL) {
            return model->members[i];
        }
    }
    return NULL;
}

enum closing closing_due(const struct model *model, struct member **one)
{
    const struct opt_consistency *policy = &model->consistency;
    if (model->present == 0) {
        return CLOSING_NOT;
    }
    if (policy->mode == OPT_ASYNC) {
        *one = first_with_push(model);
        return CLOSING_ONE;
    }
    if (!model->gathered) {
        return CLOSING_NOT;
    }
    if (policy->mode == OPT_BOUNDED) {
        *one = first_within_bound(model);
        return *one == NULL ? CLOSING_NOT : CLOSING_ONE;
    }
    if (policy->samples > 0) {
        return samples_here(model) >= policy->samples ? CLOSING_ALL : CLOSING_NOT;
    }
    return model->missing <= policy->backup ? CLOSING_EACH : CLOSING_NOT;
}

bool closing_too_late(const struct model *model, const struct push *push)
{
    return model->consistency.backup > 0 && push->head.basis < model->step;
}

/* ---------------------------------------------------------------- for people */

/* Whether the member is one of those that are missing. */
static bool is_missing(const struct model *model, const struct member *member)
{
    if (!is_waited_for(member)) {
        return false;
    }
    return model->consistency.mode == OPT_BOUNDED
               ? member->clock == closing_slowest(model)
               : member->first == NULL;
}

static const char *state_of(const struct member *member)
{
    return member->away                     ? " (not connected)"
           : member->arrival.letter != NULL ? " (at the barrier)"
                                            : "";
}

/* The names of those that are missing: ": "a", "b", and 3 more". */
static void print_names(const struct model *model, char *text, size_t capacity)
{
    size_t used = 0, named = 0, more = 0;
    text[0] = '\0';
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        if (!is_missing(model, member)) {
            continue;
        }
        if (named == NAMES_SHOWN || used >= capacity) {
            more++;
            continue;
        }
        used += (size_t)snprintf(text + used, capacity - used, "%s\"%.40s\"%s",
                                 named == 0 ? ": " : ", ", member->worker->name,
                                 state_of(member));
        named++;
    }
    if (more > 0 && used < capacity) {
        snprintf(text + used, capacity - used, ", and %zu more", more);
    }
}

void closing_missing(const struct model *model, char *text, size_t capacity)
{
    const struct opt_consistency *policy = &model->consistency;
    char names[OPT_ERROR_TEXT / 2];
    if (policy->mode != OPT_ASYNC && !model->gathered) {
        snprintf(text, capacity,
                 "the first round waits for %" PRIu32 " workers, %zu have joined",
                 policy->min_workers, model->joined);
        return;
    }
    if (policy->mode == OPT_SYNC && policy->samples > 0) {
        snprintf(text, capacity,
                 "the pushes of %zu workers cover %" PRIu64 " of %" PRIu64 " samples",
                 model->present, samples_here(model), policy->samples);
        return;
    }
    if (policy->mode == OPT_ASYNC) {
        snprintf(text, capacity,
                 "each push is an update and none is waiting; %zu workers have joined",
                 model->joined);
        return;
    }
    print_names(model, names, sizeof names);
    if (policy->mode == OPT_BOUNDED) {
        snprintf(text, capacity, "the slowest have made %" PRIu64 " pushes%s",
                 closing_slowest(model), names);
        return;
    }
    int used = snprintf(text, capacity, "%zu of %zu workers have not pushed%s",
                        model->missing, model->active, names);
    if (policy->backup > 0 && used > 0 && (size_t)used < capacity) {
        snprintf(text + used, capacity - (size_t)used,
                 "; a round does without %" PRIu32, policy->backup);
    }
}

void closing_explain(const struct model *model, const struct push *push, char *text,
                     size_t capacity)
{
    char missing[OPT_ERROR_TEXT - 160];
    struct member *one;
    if (written_is_awaited(model) && closing_due(model, &one) != CLOSING_NOT) {
        snprintf(text, capacity,
                 "the round of step %" PRIu64
                 " is complete, but there is no room to write it down: the disk has "
                 "not taken the updates before it yet",
                 model->step + 1);
        return;
    }
    closing_missing(model, missing, sizeof missing);
    if (model->consistency.mode == OPT_BOUNDED && model->gathered) {
        snprintf(text, capacity,
                 "push %" PRIu64 " of this worker would be more than %" PRIu32
                 " ahead of the slowest: %s",
                 push->member->clock + 1, model->consistency.staleness, missing);
        return;
    }
    snprintf(text, capacity, "the round of step %" PRIu64 " did not close: %s",
             model->step + 1, missing);
}
