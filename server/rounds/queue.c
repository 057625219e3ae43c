/* queue — see queue.h. */
#include "server/rounds/queue.h"

#include <stddef.h>

#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/rounds/push.h"

void queue_add(struct member *member, struct push *push, uint64_t now_ns)
{
    push->next = NULL;
    push->complete_ns = now_ns;
    if (member->last == NULL) {
        member->first = push;
        member->model->present++;
        member->model->missing -= member->joined && !member->resting;
    } else {
        member->last->next = push;
    }
    member->last = push;
    member->waiting++;
}

void queue_remove(struct push *push)
{
    struct member *member = push->member;
    struct push *before = NULL;
    for (struct push *at = member->first; at != push; at = at->next) {
        before = at;
    }
    if (before == NULL) {
        member->first = push->next;
    } else {
        before->next = push->next;
    }
    if (member->last == push) {
        member->last = before;
    }
    member->waiting--;
    if (member->first == NULL) {
        member->model->present--;
        member->model->missing += member->joined && !member->resting;
    }
}

void queue_recount(struct model *model)
{
    model->joined = 0;
    model->active = 0;
    model->missing = 0;
    model->present = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        bool active = member->joined && !member->resting;
        model->joined += member->joined;
        model->active += active;
        model->missing += active && member->first == NULL;
        model->present += member->first != NULL;
    }
    model->schedule.changed = true;
    if (model->joined == 0) {
        model->gathered = false;
    } else if (model->joined >= model->consistency.min_workers) {
        model->gathered = true;
    }
}
