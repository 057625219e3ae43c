/* membership — workers that come, go, vanish and come back. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/engine_harness.h"

static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};
static const struct opt_consistency shrink = { .mode = OPT_SYNC,
                                               .loss = OPT_LOSS_SHRINK };

Test(lease, greets_with_what_was_granted)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, NULL, 0);
    struct letter *hello = caller_greet(
        &a, (struct opt_hello){
                .protocol = 1, .worker = "a", .session = 9, .lease_ms = 1500 });
    const struct opt_hello_reply *reply = &hello->reply.body.hello;
    cr_assert(hello->reply.id == hello->request.id);
    cr_assert(reply->incarnation == 1 && reply->lease_ms == 1500);
    cr_assert(reply->heartbeat_ms == 500, "three to a lease");
    cr_assert(reply->block_elements == OPT_BLOCK &&
              reply->chunk_bytes == OPT_CHUNK_BYTES);
    harness_free(hello);
    struct letter *again =
        caller_greet(&a, (struct opt_hello){ .protocol = 1, .worker = "" });
    cr_assert(reply_status(again) == OPT_FAILED_PRECONDITION);
    harness_free(again);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(lease, refuses_what_it_does_not_know_by_name)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, NULL, 0);
    struct letter *early = letter_ask(&a, letter_start(&a, OPT_MESSAGE_LIST));
    cr_assert(reply_status(early) == OPT_FAILED_PRECONDITION);
    harness_free(early);
    struct letter *newer =
        caller_greet(&a, (struct opt_hello){ .protocol = 2, .worker = "" });
    cr_assert(reply_status(newer) == OPT_UNIMPLEMENTED);
    harness_free(newer);
    const char *const features[] = { "bf16", "teleport" };
    struct letter *picky = caller_greet(&a, (struct opt_hello){ .protocol = 1,
                                                                .worker = "a",
                                                                .session = 1,
                                                                .require = features,
                                                                .require_count = 2 });
    cr_assert(reply_status(picky) == OPT_UNIMPLEMENTED);
    cr_assert(strstr(reply_text(picky), "\"teleport\"") != NULL);
    harness_free(picky);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(lease, lets_observers_look_but_not_touch)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), o = caller_new(&harness, "", 0);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    float weights[4];
    cr_assert(model_pull(&o, model, OPT_VIEW_EVAL, "", weights, 4) == 0);
    struct letter *push = letter_ask(&o, push_constant(&o, model, 1, 4, 1.0f));
    cr_assert(reply_status(push) == OPT_PERMISSION_DENIED, "%s", reply_text(push));
    harness_free(push);
    struct letter *join = letter_ask(
        &o, create_letter(&o, "n", "sgd(lr=1)", shrink, &four, 1, false, true));
    cr_assert(reply_status(join) == OPT_PERMISSION_DENIED);
    harness_free(join);
    /* A worker who has not joined may not push either. */
    struct caller b = caller_new(&harness, "b", 2);
    push = letter_ask(&b, push_constant(&b, model, 1, 4, 1.0f));
    cr_assert(reply_status(push) == OPT_FAILED_PRECONDITION);
    harness_free(push);
    caller_gone(&a, false);
    caller_gone(&b, false);
    caller_gone(&o, false);
    harness_close(&harness);
}

Test(lease, tells_a_replaced_incarnation_so)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller old = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&old, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    harness_free(letter_ask(&old, push_constant(&old, model, 3, 4, 1.0f)));
    struct caller new = caller_new(&harness, NULL, 0);
    struct letter *hello = caller_greet(
        &new, (struct opt_hello){ .protocol = 1, .worker = "a", .session = 2 });
    cr_assert(hello->reply.body.hello.incarnation == 2);
    harness_free(hello);
    struct letter *zombie = letter_ask(&old, push_constant(&old, model, 4, 4, 1.0f));
    cr_assert(reply_status(zombie) == OPT_FAILED_PRECONDITION);
    cr_assert(strstr(reply_text(zombie), "incarnation 1") != NULL, "%s",
              reply_text(zombie));
    harness_free(zombie);
    /* The new one goes on above the sequences of the old one, once it has joined. */
    struct letter *open = letter_start(&new, OPT_MESSAGE_OPEN);
    open->request.body.open = (struct opt_open){ .model = "m", .join = true };
    open = letter_ask(&new, open);
    cr_assert(open->reply.body.model.last_sequence == 3);
    cr_assert(open->reply.body.model.workers == 1);
    harness_free(open);
    struct letter *push = letter_ask(&new, push_constant(&new, model, 4, 4, 1.0f));
    cr_assert(push->reply.body.push.fate == OPT_FATE_APPLIED);
    harness_free(push);
    caller_gone(&old, false);
    caller_gone(&new, false);
    harness_close(&harness);
}

Test(lease, continues_the_same_session_on_another_connection)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller old = caller_new(&harness, "a", 1);
    uint32_t model = model_create(&old, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    struct caller new = caller_new(&harness, NULL, 0);
    struct letter *hello = caller_greet(
        &new, (struct opt_hello){ .protocol = 1, .worker = "a", .session = 1 });
    cr_assert(hello->reply.body.hello.incarnation == 1);
    cr_assert(hello->allowance > 0, "it is joined still");
    harness_free(hello);
    caller_gone(&old, true); /* the old connection means nothing any more */
    struct letter *push = letter_ask(&new, push_constant(&new, model, 1, 4, 1.0f));
    cr_assert(push->reply.body.push.fate == OPT_FATE_APPLIED, "%s", reply_text(push));
    harness_free(push);
    caller_gone(&new, false);
    harness_close(&harness);
}

/* a has pushed, b is lost: what becomes of the round? */
static struct letter *lose_one(struct harness *harness, enum opt_loss loss,
                               struct caller *a, uint32_t *model)
{
    *a = caller_new(harness, "a", 1);
    struct caller b = caller_new(harness, "b", 2);
    *model = model_create(a, "m", "sgd(lr=1)",
                          (struct opt_consistency){ .mode = OPT_SYNC, .loss = loss },
                          &four, 1, NULL);
    model_join(&b, "m");
    struct letter *push = push_constant(a, *model, 1, 4, 1.0f);
    letter_send(a, push);
    cr_assert(!letter_is_back(harness, push));
    caller_gone(&b, true);
    return push;
}

Test(lease, shrinks_the_round_by_a_lost_worker)
{
    struct harness harness;
    struct caller a;
    uint32_t model;
    harness_open(&harness, harness_settings());
    struct letter *push =
        letter_await(&harness, lose_one(&harness, OPT_LOSS_SHRINK, &a, &model));
    cr_assert(push->reply.body.push.fate == OPT_FATE_APPLIED);
    harness_free(push);
    cr_assert(statistic(&a, "workers_lost") == 1);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(lease, waits_for_a_lost_worker_if_asked_to)
{
    struct harness harness;
    struct caller a;
    uint32_t model;
    harness_open(&harness, harness_settings());
    struct letter *push = lose_one(&harness, OPT_LOSS_WAIT, &a, &model);
    cr_assert(!letter_is_back(&harness, push));
    struct caller b = caller_new(&harness, "b", 3);
    model_join(&b, "m");
    harness_free(letter_ask(&b, push_constant(&b, model, 1, 4, 3.0f)));
    push = letter_await(&harness, push);
    cr_assert(push->reply.body.push.fate == OPT_FATE_APPLIED);
    harness_free(push);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(lease, fails_the_round_with_a_lost_worker_if_asked_to)
{
    struct harness harness;
    struct caller a;
    uint32_t model;
    harness_open(&harness, harness_settings());
    struct letter *push =
        letter_await(&harness, lose_one(&harness, OPT_LOSS_FAIL, &a, &model));
    cr_assert(reply_status(push) == OPT_ABORTED);
    cr_assert(strstr(reply_text(push), "\"b\"") != NULL, "%s", reply_text(push));
    harness_free(push);
    struct letter *next = letter_ask(&a, push_constant(&a, model, 2, 4, 1.0f));
    cr_assert(next->reply.body.push.fate == OPT_FATE_APPLIED);
    cr_assert(next->reply.body.push.step == 1, "nothing of the first was applied");
    harness_free(next);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(lease, counts_the_complete_push_of_a_worker_that_was_lost)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *dead = push_constant(&b, model, 1, 4, 3.0f);
    letter_send(&b, dead);
    caller_gone(&b, true);
    harness_free(letter_ask(&a, push_constant(&a, model, 1, 4, 1.0f)));
    dead = letter_await(&harness, dead);
    cr_assert(dead->silent);
    harness_free(dead);
    float weights[4];
    model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 4);
    cr_assert(weights[0] == -2.0f, "the mean of 1 and 3");
    /* When it comes back it learns that its push was applied. */
    b = caller_new(&harness, "b", 2);
    model_join(&b, "m");
    struct letter *again = letter_ask(&b, push_constant(&b, model, 1, 4, 3.0f));
    cr_assert(again->reply.body.push.fate == OPT_FATE_DUPLICATE);
    harness_free(again);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(lease, gives_a_broken_connection_a_while_to_come_back)
{
    struct engine_settings settings = harness_settings();
    struct harness harness;
    settings.grace_ms = 300;
    harness_open(&harness, settings);
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *push = push_constant(&a, model, 1, 4, 1.0f);
    letter_send(&a, push);
    caller_gone(&b, false);
    cr_assert(!letter_is_back(&harness, push), "b may come back");
    struct letter *closed = letter_await(&harness, push);
    cr_assert(closed->reply.body.push.fate == OPT_FATE_APPLIED, "but it did not");
    harness_free(closed);
    caller_gone(&a, false);
    harness_close(&harness);
}

Test(lease, leaves_with_the_pushes_that_were_not_applied)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1), b = caller_new(&harness, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", shrink, &four, 1, NULL);
    model_join(&b, "m");
    struct letter *push = push_constant(&b, model, 1, 4, 9.0f);
    letter_send(&b, push);
    struct letter *leave = letter_start(&b, OPT_MESSAGE_LEAVE);
    leave->request.body.leave = model;
    leave = letter_ask(&b, leave);
    cr_assert(leave->reply.message == OPT_MESSAGE_LEAVE);
    harness_free(leave);
    push = letter_await(&harness, push);
    cr_assert(reply_status(push) == OPT_ABORTED);
    harness_free(push);
    push = letter_ask(&a, push_constant(&a, model, 1, 4, 1.0f));
    cr_assert(push->reply.body.push.fate == OPT_FATE_APPLIED);
    harness_free(push);
    struct letter *bye = letter_ask(&a, letter_start(&a, OPT_MESSAGE_GOODBYE));
    cr_assert(bye->reply.message == OPT_MESSAGE_GOODBYE && bye->hang_up);
    harness_free(bye);
    caller_gone(&a, false);
    caller_gone(&b, false);
    harness_close(&harness);
}

Test(lease, promises_a_connection_room_for_the_gradients_it_may_send)
{
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    struct letter *first = letter_ask(
        &a, create_letter(&a, "m", "sgd(lr=1)", shrink, &four, 1, false, true));
    struct letter *second = letter_ask(
        &a, create_letter(&a, "n", "sgd(lr=1)", shrink, &four, 1, false, true));
    enum { PUSH = 16 + 288 }; /* four floats, and the segment that names them */
    cr_assert(first->allowance == (8 << 20) + PUSH);
    cr_assert(second->allowance == (8 << 20) + 2 * PUSH);
    harness_free(first);
    harness_free(second);
    caller_gone(&a, false);
    harness_close(&harness);
}

/* Of a table of 256 MiB a push has some rows. */
Test(lease, of_a_sparse_table_reserves_little_for_each_worker)
{
    enum { WORKERS = 8, MIB = 1 << 20 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller workers[WORKERS];
    const uint64_t shape[2] = { 64u << 20, 1 };
    const struct opt_tensor_entry table = { .name = "table",
                                            .shape = shape,
                                            .rank = 2,
                                            .elements = 64u << 20,
                                            .sparse = true };
    const uint32_t rows[2] = { 3, 5 };
    const float values[2] = { 1, 1 };
    uint64_t before = 0;
    for (int i = 0; i < WORKERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        workers[i] = caller_new(&harness, name, 1);
        const struct opt_consistency async = { .mode = OPT_ASYNC };
        struct letter *letter =
            letter_ask(&workers[i], create_letter(&workers[i], "m", "sgd(lr=1)", async,
                                                  &table, 1, false, true));
        cr_assert_eq(reply_status(letter), OPT_OK, "worker %d: %s", i,
                     reply_text(letter));
        cr_expect_lt(letter->granted, (size_t)2 * MIB);
        cr_expect_geq(letter->allowance, (size_t)256 * MIB, "it may push all rows");
        uint32_t model = letter->reply.body.model.model;
        harness_free(letter);
        const struct opt_segment segment = { .rows = rows, .row_count = 2 };
        letter =
            letter_ask(&workers[i], push_letter(&workers[i], model, 1, OPT_FP32,
                                                &segment, 1, values, sizeof values));
        cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
        harness_free(letter);
        uint64_t used = statistic(&workers[i], "memory_used");
        cr_expect_lt(used - before, (uint64_t)(i == 0 ? 300 : 3) * MIB);
        before = used;
    }
    for (int i = 0; i < WORKERS; i++) {
        caller_gone(&workers[i], false);
    }
    harness_close(&harness);
}

/* The tables of a push take as much as its tensors are many, whatever it names of them:
 * one is reserved for each worker, and those that wait behind it are paid for. */
Test(lease, charges_for_the_tables_of_pushes_that_wait)
{
    enum { TENSORS = 20000, WAITING = 8 };
    struct harness harness;
    harness_open(&harness, harness_settings());
    struct caller a = caller_new(&harness, "a", 1);
    struct caller b = caller_new(&harness, "b", 1);
    static struct opt_tensor_entry tensors[TENSORS];
    static char names[TENSORS][8];
    const uint64_t one = 1;
    for (int i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        tensors[i] = (struct opt_tensor_entry){
            .name = names[i], .shape = &one, .rank = 1, .elements = 1
        };
    }
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", shrink, tensors, TENSORS, NULL);
    model_join(&b, "m");
    uint64_t before = statistic(&a, "memory_used");
    struct letter *pushes[WAITING];
    for (int i = 0; i < WAITING; i++) { /* the round waits for b */
        pushes[i] = push_constant(&a, model, (uint64_t)i + 1, 1, 1);
        letter_send(&a, pushes[i]);
    }
    uint64_t used = statistic(&a, "memory_used") - before;
    cr_expect_geq(used, (uint64_t)(WAITING - 2) * TENSORS * 16, "%llu bytes",
                  (unsigned long long)used);
    caller_gone(&b, false);
    for (int i = 0; i < WAITING; i++) {
        harness_free(letter_await(&harness, pushes[i]));
    }
    cr_expect_lt(statistic(&a, "memory_used"), before, "all is given back");
    caller_gone(&a, false);
    harness_close(&harness);
}
