/* What the commands of optctl do, against a real daemon. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "common/optim/rule.h"
#include "tests/support/operator.h"
#include "tests/support/raw.h"

static void create(void)
{
    cr_assert_eq(RUN("create", "mlp", "--spec", "sgd(lr=1)", "--tensor",
                     "fc.weight:2x3", "--tensor", "fc.bias:2", "--tensor", "scale:"),
                 0, "%s", operator_out);
}

Test(optctl, creates_shows_lists_and_deletes, .init = operator_start,
     .fini = operator_stop)
{
    create();
    create(); /* it is the same */
    cr_assert_eq(RUN("--json", "list"), 0, "%s", operator_out);
    json_t *list = operator_json();
    cr_assert_eq(json_array_size(list), (size_t)1);
    cr_expect_str_eq(operator_text(json_array_get(list, 0), "name"), "mlp");
    json_decref(list);
    cr_assert_eq(RUN("--json", "show", "mlp"), 0, "%s", operator_out);
    json_t *model = operator_json();
    cr_expect_str_eq(operator_text(model, "specification"), "sgd(lr=1)");
    cr_expect_str_eq(operator_text(model, "mode"), "sync");
    cr_expect_eq(json_integer_value(json_object_get(model, "parameters")), 9);
    const json_t *tensors = json_object_get(model, "tensors");
    cr_assert_eq(json_array_size(tensors), (size_t)3);
    const json_t *shape = json_object_get(json_array_get(tensors, 0), "shape");
    cr_expect_eq(json_integer_value(json_array_get(shape, 1)), 3);
    shape = json_object_get(json_array_get(tensors, 2), "shape");
    cr_expect_eq(json_array_size(shape), (size_t)0);
    json_decref(model);
    cr_assert_eq(RUN("show", "mlp"), 0);
    cr_expect(strstr(operator_out, "fc.weight:2x3") != NULL, "%s", operator_out);
    cr_assert_eq(RUN("list"), 0);
    cr_expect(strstr(operator_out, "mlp") != NULL &&
                  strstr(operator_out, "sgd(lr=1)") != NULL,
              "%s", operator_out);
    cr_assert_eq(RUN("delete", "mlp"), 0, "%s", operator_out);
    cr_assert_eq(RUN("show", "mlp"), 1);
    cr_expect(strstr(operator_out, "no model \"mlp\"") != NULL, "%s", operator_out);
}

Test(optctl, creates_models_of_any_policy_and_shows_them, .init = operator_start,
     .fini = operator_stop)
{
    static const char policy[] = "bounded,loss=fail,min_workers=2,staleness=4,damping,"
                                 "delay_compensation=0.04";
    static const char *const wrong[] = {
        "fast",           "sync,samples=x", "sync,samples",    "async,damping=1",
        "sync,loss=give", "sync,,backup=1", "sync,patience=1", "sync,atomic=half"
    };
    cr_assert_eq(RUN("create", "mlp", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                     "--policy", policy),
                 0, "%s", operator_out);
    cr_assert_eq(RUN("show", "mlp"), 0, "%s", operator_out);
    cr_expect(strstr(operator_out, policy) != NULL, "%s", operator_out);
    cr_assert_eq(RUN("--json", "show", "mlp"), 0, "%s", operator_out);
    json_t *model = operator_json();
    cr_expect_str_eq(operator_text(model, "mode"), "bounded");
    cr_expect_eq(json_integer_value(json_object_get(model, "staleness")), 4);
    json_decref(model);
    cr_assert_eq(RUN("create", "mlp", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                     "--policy", "sync,samples=100"),
                 1);
    cr_expect(strstr(operator_out, "its mode is bounded, not sync") != NULL, "%s",
              operator_out);
    cr_assert_eq(RUN("create", "streamed", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                     "--policy", "sync,atomic=shard"),
                 0, "%s", operator_out);
    cr_assert_eq(RUN("show", "streamed"), 0, "%s", operator_out);
    cr_expect(strstr(operator_out, "atomic=shard") != NULL, "%s", operator_out);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(RUN("create", "m", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                         "--policy", wrong[i]),
                     64, "%s: %s", wrong[i], operator_out);
    }
}

/* Which life of a worker it is, and how often its connection was replaced. */
Test(optctl, shows_the_lives_of_a_worker, .init = operator_start, .fini = operator_stop)
{
    static const struct opt_hello lives[] = {
        { .protocol = OPT_PROTOCOL, .worker = "a", .session = 1, .client = "test" },
        { .protocol = OPT_PROTOCOL, .worker = "a", .session = 2, .client = "test" },
        { .protocol = OPT_PROTOCOL, .worker = "a", .session = 2, .client = "test" },
    };
    const struct opt_request open = {
        .id = 2,
        .message = OPT_MESSAGE_OPEN,
        .body.open = { .model = "mlp", .join = true },
    };
    int sockets[3];
    create();
    for (size_t i = 0; i < 3; i++) {
        const struct opt_request hello = { .id = 1,
                                           .message = OPT_MESSAGE_HELLO,
                                           .body.hello = lives[i] };
        const struct opt_request *requests[] = { &hello, &open };
        sockets[i] = raw_connect(operator_server.port);
        for (size_t k = 0; k < 2; k++) {
            struct raw_reply reply;
            cr_assert(raw_request(sockets[i], requests[k], NULL, 0));
            cr_assert(raw_receive(sockets[i], &reply));
            cr_assert_neq(reply.reply.message, OPT_MESSAGE_ERROR, "%s",
                          reply.reply.body.error.text);
            raw_reply_fini(&reply);
        }
    }
    cr_assert_eq(RUN("show", "mlp"), 0, "%s", operator_out);
    cr_expect_not_null(strstr(operator_out, "worker         a (connected), 0 applied"),
                       "%s", operator_out);
    cr_expect_not_null(
        strstr(operator_out,
               "incarnation 2, connected again 1 times, 0 pushes sent again\n"),
        "%s", operator_out);
    for (size_t i = 0; i < 3; i++) {
        close(sockets[i]);
    }
}

Test(optctl, changes_what_a_worker_trains_with, .init = operator_start,
     .fini = operator_stop)
{
    create();
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_options options = optclient_options_default();
    options.worker = "a";
    cr_assert_eq(optclient_connect(operator_server.address, &options, &client),
                 OPTCLIENT_OK);
    cr_assert_eq(optclient_open(client, "mlp", 1, &model), OPTCLIENT_OK, "%s",
                 optclient_error());
    cr_assert_eq(RUN("set", "mlp", "lr=0.5", "--at-step", "2"), 0, "%s", operator_out);
    cr_expect_str_eq(operator_out, "from update 2 on\n");
    cr_assert_eq(RUN("--json", "set", "mlp", "lr=0.25",
                     "tensors(\"scale\", lr_scale=2)", "--at-step", "3"),
                 0, "%s", operator_out);
    json_t *answer = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(answer, "step")), 3);
    json_decref(answer);
    float gradient = 1, weight = 0;
    static const float expected[] = { -1, -1.5F, -2 };
    for (size_t i = 0; i < 3; i++) {
        struct optclient_values push = { .tensor = 2, .values = &gradient },
                                pull = { .tensor = 2, .values = &weight };
        cr_assert_eq(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, NULL),
                     OPTCLIENT_OK, "%s", optclient_error());
        cr_expect_eq(weight, expected[i], "%g", (double)weight);
    }
    uint64_t step = 0;
    cr_assert_eq(optclient_set(client, "mlp", "lr=2", 0, &step), OPTCLIENT_OK, "%s",
                 optclient_error());
    cr_expect_eq(step, UINT64_C(4));
    cr_expect_eq(optclient_wait_epoch(model, 1, 0, NULL),
                 OPTCLIENT_FAILED_PRECONDITION);
    struct optclient_description *description;
    cr_assert_eq(optclient_describe(client, "mlp", &description), OPTCLIENT_OK);
    cr_assert_eq(description->change_count, (size_t)3);
    cr_expect_eq(description->changes[1].step, UINT64_C(3));
    cr_expect_str_eq(description->changes[1].before, "sgd(lr=0.5)");
    cr_expect_str_eq(description->specification, description->changes[2].after);
    cr_expect_eq(description->lr, 2.0);
    optclient_description_free(description);
    optclient_model_close(model);
    optclient_close(client);
    cr_assert_eq(RUN("show", "mlp"), 0);
    cr_expect(strstr(operator_out, "changed at     update 2: sgd(lr=0.5)\n") != NULL,
              "%s", operator_out);
}

Test(optctl, refuses_with_a_sentence_and_its_own_exit_status, .init = operator_start,
     .fini = operator_stop)
{
    char path[64];
    create();
    operator_write_file("rule: adam\n", path);
    cr_expect_eq(RUN("set", "mlp", "rl=0.5"), 1);
    cr_expect(strstr(operator_out, "did you mean 'lr'") != NULL ||
                  strstr(operator_out, "it has lr") != NULL,
              "%s", operator_out);
    cr_expect_eq(RUN("set", "mlp", "lookahead(5)"), 1);
    cr_expect(strstr(operator_out, "slow_param") != NULL, "%s", operator_out);
    cr_expect_eq(RUN("create", "b", "--spec", "adma", "--tensor", "w:1"), 1);
    cr_expect(strstr(operator_out, "did you mean 'adam'") != NULL, "%s", operator_out);
    cr_expect_eq(RUN("create", "b", "--spec", "adam", "--tensor", "w:1x"), 64);
    cr_expect_eq(RUN("create", "b", "--spec", "adam", "--tensor", "w:0"), 64);
    cr_expect_eq(RUN("create", "b", "--spec", "adam", "--tensor", "w"), 64);
    cr_expect_eq(RUN("create", "b", "--spec", "adam"), 64);
    cr_expect_eq(RUN("set", "mlp"), 64);
    cr_expect_eq(RUN("set", "mlp", "lr=1", "--at-step", "soon"), 64);
    cr_expect_eq(RUN("show"), 64);
    cr_expect_eq(RUN("create", "b", "--tensor", "w:1"), 64);
    cr_expect_eq(
        RUN("create", "b", "--spec", "adam", "--spec-file", path, "--tensor", "w:1"),
        64);
    cr_expect_eq(RUN("create", "b", "--spec-file", "no such file", "--tensor", "w:1"),
                 1);
    cr_expect(strstr(operator_out, "no such file cannot be opened") != NULL, "%s",
              operator_out);
    cr_expect_eq(RUN("spec"), 64);
    cr_expect_eq(RUN("spec", "adam", "--file", path), 64);
    cr_expect_eq(RUN("spec", "adma"), 1);
    cr_expect(strstr(operator_out, "did you mean 'adam'") != NULL, "%s", operator_out);
    cr_expect_eq(RUN("rules", "--profile", "nothing"), 64);
    cr_expect_eq(RUN("rules", "adam", "--profile", "torch"), 64);
    cr_expect_eq(RUN("shwo", "mlp"), 64);
    cr_expect_eq(RUN("rules", "nothing"), 64);
    cr_expect_eq(RUN("--server", "nowhere", "list"), 64);
    cr_expect_eq(unlink(path), 0);
}

Test(optctl, tells_counters_and_rules, .init = operator_start, .fini = operator_stop)
{
    cr_assert_eq(RUN("stats"), 0);
    cr_expect(strstr(operator_out, "requests") != NULL, "%s", operator_out);
    cr_assert_eq(RUN("--json", "stats"), 0);
    json_t *counters = operator_json();
    cr_expect(json_is_integer(json_object_get(counters, "requests")));
    json_decref(counters);
    cr_assert_eq(RUN("rules"), 0);
    cr_expect(strstr(operator_out, "amsbound") != NULL &&
              strstr(operator_out, "rangerlars") != NULL);
    cr_assert_eq(RUN("--json", "rules", "adam"), 0);
    json_t *rule = operator_json();
    const json_t *beta1 = json_object_get(json_object_get(rule, "options"), "beta1");
    cr_expect_eq(json_number_value(json_object_get(beta1, "default")), 0.9);
    cr_expect_eq(json_number_value(json_object_get(beta1, "minimum")), 0.0);
    cr_expect_eq(json_number_value(json_object_get(beta1, "exclusiveMaximum")), 1.0);
    json_decref(rule);
    cr_assert_eq(RUN("--json", "rules"), 0);
    json_t *all = operator_json();
    size_t rules;
    opt_rules(&rules);
    cr_expect_eq(json_array_size(json_object_get(all, "rules")), rules);
    json_decref(all);
    cr_assert_eq(RUN("rules", "lamb"), 0);
    cr_expect(strstr(operator_out, "lamb is adam(") != NULL, "%s", operator_out);
}

Test(optctl, takes_specifications_from_files_and_gives_them_back,
     .init = operator_start, .fini = operator_stop)
{
    static const char text[] = "rule: torch.rmsprop\nmomentum: 0.9\nwarmup: 10\n";
    static const char canonical[] =
        "rmsprop(lr=0.01, rho=0.99, eps_mode=outside_sqrt, momentum=0.9, "
        "momentum_form=heavy_ball) + warmup(10)";
    char path[64], again[64];
    operator_write_file(text, path);
    cr_assert_eq(RUN("create", "m", "--spec-file", path, "--tensor", "w:4"), 0, "%s",
                 operator_out);
    cr_assert_eq(RUN("--json", "show", "m"), 0, "%s", operator_out);
    json_t *model = operator_json();
    cr_expect_str_eq(operator_text(model, "specification"), canonical);
    json_decref(model);
    cr_assert_eq(RUN("show", "m", "--yaml"), 0, "%s", operator_out);
    operator_write_file(operator_out, again);
    cr_assert_eq(RUN("--json", "spec", "--file", again), 0, "%s", operator_out);
    json_t *forms = operator_json();
    cr_expect_str_eq(operator_text(forms, "expression"), canonical);
    cr_expect(strstr(operator_text(forms, "message"), "word: \"heavy_ball\"") != NULL,
              "%s", operator_out);
    json_decref(forms);
    cr_assert_eq(RUN("spec", canonical), 0, "%s", operator_out);
    cr_expect(strstr(operator_out, "\nrule: rmsprop\nlr: 0.01\n") != NULL, "%s",
              operator_out);
    cr_expect_eq(unlink(path), 0);
    cr_expect_eq(unlink(again), 0);
}

Test(optctl, names_the_file_and_the_line, .init = operator_start, .fini = operator_stop)
{
    char path[64], place[80];
    operator_write_file("rule: adam\ncosine: {stpes: 100}\n", path);
    cr_expect_eq(RUN("create", "m", "--spec-file", path, "--tensor", "w:4"), 1);
    snprintf(place, sizeof(place), "%s:2: ", path);
    cr_expect(strstr(operator_out, place) != NULL, "%s", operator_out);
    cr_expect(strstr(operator_out, "did you mean 'steps'") != NULL, "%s", operator_out);
    cr_expect_eq(unlink(path), 0);
}

Test(optctl, lists_profiles_and_what_they_do_not_offer, .init = operator_start,
     .fini = operator_stop)
{
    cr_assert_eq(RUN("rules", "--profile", "optax"), 0, "%s", operator_out);
    cr_expect(strstr(operator_out, "adam + decay(0.0001, decoupled)") != NULL, "%s",
              operator_out);
    cr_expect(strstr(operator_out, "not offered: it multiplies") != NULL, "%s",
              operator_out);
    cr_expect(strstr(operator_out, "torch.") == NULL, "%s", operator_out);
    cr_assert_eq(RUN("--json", "rules", "--profile", "keras"), 0, "%s", operator_out);
    json_t *rows = operator_json();
    cr_expect_gt(json_array_size(rows), (size_t)8);
    cr_expect_str_eq(operator_text(json_array_get(rows, 0), "name"), "keras.sgd");
    cr_expect(json_is_null(json_object_get(json_array_get(rows, 0), "expression")));
    json_decref(rows);
    cr_assert_eq(RUN("rules", "torch.radam"), 0, "%s", operator_out);
    cr_expect(strstr(operator_out, "torch.radam is radam(") != NULL, "%s",
              operator_out);
}
