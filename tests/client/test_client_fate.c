/* fate — every order of what can happen to a push, judged by a model of the daemon.
 *
 * The model knows what the daemon may have: whether a whole copy of the push, or part
 * of one, may stand under its present number. Whatever happens, a push must not get
 * another number then, nor be said not to have been applied.
 */
#include "client/fate.h"

#include <criterion/criterion.h>
#include <string.h>

enum event {
    FIRST_FRAME,
    LAST_FRAME,
    CUT,
    NOT_TAKEN,
    UNSAID, /* an error in a frame that is not the first: no fate stands in it */
    REFUSED,
    IN_PART,
    APPLIED,
    NOT_DURABLE, /* applied, and on no disk yet */
    FOUND_APPLIED,
    FOUND_REFUSED,
    FOUND_ABSENT,
    FOUND_FORGOTTEN,
    RESENT,
    EVENTS
};
enum { DEPTH = 7 };

/* What is true at the daemon. */
struct truth {
    bool may_stand;      /* a copy that counts, or may count, may be there */
    bool this_may_stand; /* and the present copy */
    enum fate_extent sent;
    bool counts; /* it was applied, and this was said */
};

struct run {
    struct fate fate;
    struct truth truth;
    uint64_t last;
};

/* Whether the event can happen now. */
static bool can(const struct run *run, enum event event)
{
    bool settled = run->fate.settled != OPT_FATE_UNKNOWN;
    bool under_way = run->truth.sent != FATE_NOTHING;
    switch (event) {
    case FIRST_FRAME:
        return !settled && !under_way;
    case LAST_FRAME:
        return !settled && run->truth.sent == FATE_PARTLY;
    case NOT_TAKEN:
    case UNSAID:
    case REFUSED:
    case APPLIED:
        return !settled && under_way;
    case IN_PART:
        return !settled && under_way && run->fate.by_shards;
    case NOT_DURABLE:
        return !settled && run->truth.sent == FATE_WHOLE;
    case CUT: /* also in the middle of an answer that has told of the push */
        return true;
    case FOUND_APPLIED:
    case FOUND_REFUSED:
    case FOUND_FORGOTTEN:
        return !settled && !under_way && run->truth.may_stand;
    case FOUND_ABSENT:
        return !under_way;
    case RESENT:
        return settled && fate_may_resend(&run->fate);
    default:
        return false;
    }
}

static void answer(struct run *run, enum opt_fate fate)
{
    const struct opt_error_reply reply = { .status = OPT_ABORTED, .fate = fate };
    fate_refuse(&run->fate, &reply);
}

static void happen(struct run *run, enum event event)
{
    struct truth *truth = &run->truth;
    const struct opt_settled applied = { .fate = OPT_FATE_APPLIED };
    const struct opt_settled refused = { .fate = OPT_FATE_REFUSED };
    const struct opt_error_reply not_durable = { .status = OPT_RESOURCE_EXHAUSTED,
                                                 .detail = OPT_DETAIL_NOT_DURABLE,
                                                 .fate = OPT_FATE_APPLIED };
    switch (event) {
    case FIRST_FRAME:
        fate_begin(&run->fate, &run->last);
        truth->sent = FATE_PARTLY;
        truth->this_may_stand = run->fate.by_shards;
        break;
    case LAST_FRAME:
        fate_send_last(&run->fate);
        truth->sent = FATE_WHOLE;
        truth->this_may_stand = true;
        break;
    case CUT:
        fate_cut(&run->fate);
        truth->may_stand = truth->may_stand || truth->this_may_stand;
        truth->this_may_stand = false;
        truth->sent = FATE_NOTHING;
        break;
    case NOT_TAKEN:
        answer(run, OPT_FATE_NOT_TAKEN);
        truth->this_may_stand = false;
        truth->sent = FATE_NOTHING;
        break;
    case UNSAID:
        answer(run, OPT_FATE_UNKNOWN);
        if (!run->fate.by_shards) {
            truth->this_may_stand = false;
            truth->sent = FATE_NOTHING;
        }
        break;
    case REFUSED:
        answer(run, OPT_FATE_REFUSED);
        truth->may_stand = truth->this_may_stand = false;
        break;
    case IN_PART:
        answer(run, OPT_FATE_IN_PART);
        break;
    case APPLIED:
        fate_answer(&run->fate, OPT_FATE_APPLIED);
        truth->counts = true;
        break;
    case NOT_DURABLE:
        fate_refuse(&run->fate, &not_durable);
        truth->may_stand = true;
        truth->this_may_stand = false;
        truth->sent = FATE_NOTHING;
        break;
    case FOUND_APPLIED:
        fate_found(&run->fate, &applied);
        truth->counts = true;
        break;
    case FOUND_REFUSED:
        fate_found(&run->fate, &refused);
        truth->may_stand = false;
        break;
    case FOUND_ABSENT:
        fate_absent(&run->fate, true, run->last);
        truth->may_stand = false;
        break;
    case FOUND_FORGOTTEN:
        fate_absent(&run->fate, false, run->last);
        break;
    default:
        fate_resend(&run->fate);
        truth->sent = FATE_NOTHING;
        break;
    }
}

static void judge(const struct run *before, const struct run *after)
{
    const struct fate *fate = &after->fate;
    bool stands = after->truth.may_stand || after->truth.this_may_stand;
    enum opt_fate told = fate_tell(fate);
    cr_assert_neq(told, OPT_FATE_UNKNOWN);
    cr_assert_neq(told, OPT_FATE_NOT_TAKEN);
    if (after->truth.counts) {
        cr_assert(fate_is_done(fate) && !fate_may_resend(fate), "it would count twice");
        cr_assert_eq(before->fate.number, fate->number);
    }
    if (stands) {
        cr_assert_neq(told, OPT_FATE_REFUSED, "said not to be applied, and it may be");
        cr_assert_eq(before->fate.number == 0 ||
                         before->fate.number == after->fate.number,
                     true, "the number was given up, and a copy may stand");
    } else if (fate->settled == OPT_FATE_UNKNOWN) {
        cr_assert_eq(told, OPT_FATE_REFUSED, "what can be known is told");
    }
    cr_assert_eq(strstr(fate_words(fate), "not known") != NULL,
                 told == OPT_FATE_NOT_KNOWN, "the words are others than the fate");
    cr_assert_eq(strstr(fate_words(fate), "was not applied") != NULL,
                 told == OPT_FATE_REFUSED);
}

static size_t explore(const struct run *run, unsigned depth)
{
    size_t seen = 1;
    for (enum event event = 0; depth > 0 && event < EVENTS; event++) {
        if (can(run, event)) {
            struct run next = *run;
            happen(&next, event);
            judge(run, &next);
            seen += explore(&next, depth - 1);
        }
    }
    return seen;
}

Test(client_fate, is_told_truly_and_no_number_is_given_up_too_early_in_every_order)
{
    for (int by_shards = 0; by_shards <= 1; by_shards++) {
        struct run run = { .fate = { .by_shards = by_shards != 0 } };
        cr_assert_gt(explore(&run, DEPTH), 1000);
    }
}

Test(client_fate, keeps_the_number_of_a_push_whose_second_copy_was_not_taken)
{
    struct run run = { .last = 6 };
    happen(&run, FIRST_FRAME);
    happen(&run, LAST_FRAME);
    happen(&run, CUT);
    happen(&run, FIRST_FRAME);
    happen(&run, LAST_FRAME);
    happen(&run, NOT_TAKEN); /* damaged, no room, another's name: the first may stand */
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_NOT_KNOWN);
    fate_resend(&run.fate);
    happen(&run, FIRST_FRAME);
    cr_assert_eq(run.fate.number, 7);
}

Test(client_fate, gives_a_new_number_to_what_was_refused_or_passed_over)
{
    struct run run = { .last = 6 };
    happen(&run, FIRST_FRAME);
    happen(&run, REFUSED);
    happen(&run, RESENT);
    happen(&run, FIRST_FRAME);
    cr_assert_eq(run.fate.number, 8);
    happen(&run, CUT);
    fate_absent(&run.fate, true, 7);
    happen(&run, FIRST_FRAME);
    cr_assert_eq(run.fate.number, 8, "none has come after it");
    happen(&run, CUT);
    fate_absent(&run.fate, true, 9);
    cr_assert_eq(run.fate.number, 0);
}

Test(client_fate, of_half_a_push_is_known_unless_shards_count_alone)
{
    struct run run = { 0 };
    happen(&run, FIRST_FRAME);
    happen(&run, CUT);
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_REFUSED);
    run = (struct run){ .fate = { .by_shards = true } };
    happen(&run, FIRST_FRAME);
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_NOT_KNOWN);
    happen(&run, CUT);
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_NOT_KNOWN);
}

Test(client_fate, is_not_known_if_a_later_frame_is_refused_and_shards_count_alone)
{
    for (int by_shards = 0; by_shards <= 1; by_shards++) {
        struct run run = { .fate = { .by_shards = by_shards != 0 } };
        happen(&run, FIRST_FRAME);
        happen(&run, LAST_FRAME);
        happen(&run, UNSAID); /* no room, or another process has the name */
        cr_assert_eq(fate_tell(&run.fate),
                     by_shards ? OPT_FATE_NOT_KNOWN : OPT_FATE_REFUSED);
    }
}

Test(client_fate, of_a_push_that_is_applied_and_on_no_disk_is_asked_for_again)
{
    struct run run = { .last = 6 };
    happen(&run, FIRST_FRAME);
    happen(&run, LAST_FRAME);
    happen(&run, NOT_DURABLE);
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_APPLIED);
    cr_assert(fate_may_resend(&run.fate));
    cr_assert(fate_is_open(&run.fate), "it is worth asking about");
    fate_resend(&run.fate);
    happen(&run, FIRST_FRAME);
    cr_assert_eq(run.fate.number, 7);
    happen(&run, CUT);
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_APPLIED);
    fate_absent(&run.fate, true, 5); /* the daemon was started anew, and has lost it */
    cr_assert_eq(fate_tell(&run.fate), OPT_FATE_REFUSED);
    happen(&run, FIRST_FRAME);
    cr_assert_eq(run.fate.number, 7);
}
