#include "client/fate.h"

static enum fate_extent more(enum fate_extent a, enum fate_extent b)
{
    return a > b ? a : b;
}

/* ---------------------------------------------------------------- a copy on its way */

void fate_begin(struct fate *fate, uint64_t *last)
{
    if (fate->number == 0) {
        fate->number = ++*last;
    }
    fate->sent = FATE_PARTLY;
}

void fate_send_last(struct fate *fate)
{
    fate->sent = FATE_WHOLE;
}

void fate_cut(struct fate *fate)
{
    /* A copy that was not whole goes with its connection, but for applied shards. */
    if (fate->sent == FATE_WHOLE || fate->by_shards) {
        fate->left = more(fate->left, fate->sent);
    }
    fate->sent = FATE_NOTHING;
    fate->inquired = false;
}

/* ---------------------------------------------------------------- what the daemon says
 */

void fate_answer(struct fate *fate, enum opt_fate settled)
{
    fate->settled = settled;
}

bool fate_is_untold(const struct fate *fate, const struct opt_error_reply *reply)
{
    return reply->fate == OPT_FATE_UNKNOWN && fate->by_shards && fate_is_open(fate);
}

void fate_refuse(struct fate *fate, const struct opt_error_reply *reply)
{
    fate->detail = reply->detail;
    if (fate_is_untold(fate, reply)) {
        return;
    }
    if (reply->fate == OPT_FATE_APPLIED && reply->detail == OPT_DETAIL_NOT_DURABLE) {
        fate->applied = true;
        fate->left = FATE_WHOLE; /* what was sent is with the daemon */
        fate->sent = FATE_NOTHING;
        return;
    }
    if (reply->fate == OPT_FATE_UNKNOWN || reply->fate == OPT_FATE_NOT_TAKEN) {
        fate->sent = FATE_NOTHING;
        return;
    }
    fate->settled = reply->fate;
    fate->code = reply->status;
    fate->shards_applied = reply->shards_applied;
    fate->shards = reply->shards;
}

void fate_found(struct fate *fate, const struct opt_settled *settled)
{
    bool applied = settled->fate == OPT_FATE_APPLIED;
    fate->settled = applied ? OPT_FATE_DUPLICATE : settled->fate;
    fate->code = settled->status;
    fate->shards_applied = settled->shards_applied;
}

void fate_absent(struct fate *fate, bool remembered, uint64_t last)
{
    if (fate->settled != OPT_FATE_UNKNOWN) {
        return; /* the daemon has said so before, and was not asked again */
    }
    if (!remembered && fate_is_open(fate)) {
        fate->settled = OPT_FATE_NOT_KNOWN;
        return;
    }
    fate->left = FATE_NOTHING;
    fate->applied = false;
    if (fate->number <= last) {
        fate->number = 0; /* it was passed over: others came after it */
    }
}

/* ---------------------------------------------------------------- what follows */

bool fate_is_open(const struct fate *fate)
{
    enum fate_extent extent = more(fate->sent, fate->left);
    return fate->settled == OPT_FATE_UNKNOWN &&
           (extent == FATE_WHOLE || (extent == FATE_PARTLY && fate->by_shards));
}

bool fate_is_done(const struct fate *fate)
{
    return fate->settled >= OPT_FATE_APPLIED && fate->settled <= OPT_FATE_SKIPPED;
}

bool fate_may_resend(const struct fate *fate)
{
    return fate->settled == OPT_FATE_UNKNOWN || fate->settled == OPT_FATE_REFUSED;
}

void fate_resend(struct fate *fate)
{
    if (fate->settled == OPT_FATE_REFUSED) {
        *fate = (struct fate){ .incarnation = fate->incarnation,
                               .by_shards = fate->by_shards };
    }
}

enum opt_fate fate_tell(const struct fate *fate)
{
    if (fate->settled != OPT_FATE_UNKNOWN) {
        return fate->settled;
    }
    if (fate->applied) {
        return OPT_FATE_APPLIED;
    }
    return fate_is_open(fate) ? OPT_FATE_NOT_KNOWN : OPT_FATE_REFUSED;
}

void fate_result(const struct fate *fate, struct optclient_result *result)
{
    result->fate = (enum optclient_fate)fate_tell(fate);
    result->shards_applied = fate->shards_applied;
    result->shards = fate->shards;
}

const char *fate_words(const struct fate *fate)
{
    switch (fate_tell(fate)) {
    case OPT_FATE_APPLIED:
    case OPT_FATE_DUPLICATE:
        return "; the push was applied";
    case OPT_FATE_DROPPED:
        return "; the push was dropped";
    case OPT_FATE_SKIPPED:
        return "; the push was skipped with its round";
    case OPT_FATE_IN_PART:
        return "; shards of the push were applied";
    case OPT_FATE_NOT_KNOWN:
        return fate->by_shards
                   ? "; whether the push was applied, or shards of it, is not known"
                   : "; whether the push was applied is not known";
    default:
        return "; the push was not applied";
    }
}
