/* optctl as an operator uses it: one process for each command, against a real daemon.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/end_to_end/daemon.h"
#include "tests/end_to_end/raw.h"

enum { MOST_ARGUMENTS = 24, MOST_OUTPUT = 1 << 17 };

static struct daemon_process server;
static const char *address;
static char out[MOST_OUTPUT]; /* of the last command: both streams */

static void start(void)
{
    daemon_start(&server, NULL);
    address = server.address;
}

static void stop(void)
{
    daemon_stop(&server);
}

static void become(int output, char *const *arguments)
{
    const char *build = getenv("OPTIMD_BUILD");
    char program[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    snprintf(program, sizeof(program), "%s/optctl", build == NULL ? "build" : build);
    execv(program, arguments);
    _exit(127);
}

/* Run optctl --server ADDRESS with these arguments; returns its exit status. */
static int optctl(const char *const *given)
{
    char *arguments[MOST_ARGUMENTS] = { (char *)"optctl", (char *)"--server",
                                        (char *)(uintptr_t)address };
    for (size_t i = 0; given[i] != NULL; i++) {
        cr_assert_lt(i + 4, (size_t)MOST_ARGUMENTS);
        arguments[i + 3] = (char *)(uintptr_t)given[i];
    }
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        become(ends[1], arguments);
    }
    close(ends[1]);
    size_t size = 0;
    ssize_t got;
    while ((got = read(ends[0], out + size, sizeof(out) - 1 - size)) > 0) {
        size += (size_t)got;
    }
    out[size] = '\0';
    close(ends[0]);
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

#define RUN(...) optctl((const char *const[]){ __VA_ARGS__, NULL })

static json_t *read_json(void)
{
    json_error_t error;
    json_t *value = json_loads(out, 0, &error);
    cr_assert(value != NULL, "%s: %s", error.text, out);
    return value;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    cr_assert(text != NULL, "%s: %s", key, out);
    return text;
}

/* A file of its own with this text; *path is where. */
static void write_file(const char *text, char path[64])
{
    snprintf(path, 64, "/tmp/optimd-optctl-XXXXXX");
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, text, strlen(text)), (ssize_t)strlen(text));
    cr_assert_eq(close(file), 0);
}

static void create(void)
{
    cr_assert_eq(RUN("create", "mlp", "--spec", "sgd(lr=1)", "--tensor",
                     "fc.weight:2x3", "--tensor", "fc.bias:2", "--tensor", "scale:"),
                 0, "%s", out);
}

Test(optctl, creates_shows_lists_and_deletes, .init = start, .fini = stop)
{
    create();
    create(); /* it is the same */
    cr_assert_eq(RUN("--json", "list"), 0, "%s", out);
    json_t *list = read_json();
    cr_assert_eq(json_array_size(list), (size_t)1);
    cr_expect_str_eq(text_of(json_array_get(list, 0), "name"), "mlp");
    json_decref(list);
    cr_assert_eq(RUN("--json", "show", "mlp"), 0, "%s", out);
    json_t *model = read_json();
    cr_expect_str_eq(text_of(model, "specification"), "sgd(lr=1)");
    cr_expect_str_eq(text_of(model, "mode"), "sync");
    cr_expect_eq(json_integer_value(json_object_get(model, "parameters")), 9);
    const json_t *tensors = json_object_get(model, "tensors");
    cr_assert_eq(json_array_size(tensors), (size_t)3);
    const json_t *shape = json_object_get(json_array_get(tensors, 0), "shape");
    cr_expect_eq(json_integer_value(json_array_get(shape, 1)), 3);
    shape = json_object_get(json_array_get(tensors, 2), "shape");
    cr_expect_eq(json_array_size(shape), (size_t)0);
    json_decref(model);
    cr_assert_eq(RUN("show", "mlp"), 0);
    cr_expect(strstr(out, "fc.weight:2x3") != NULL, "%s", out);
    cr_assert_eq(RUN("list"), 0);
    cr_expect(strstr(out, "mlp") != NULL && strstr(out, "sgd(lr=1)") != NULL, "%s",
              out);
    cr_assert_eq(RUN("delete", "mlp"), 0, "%s", out);
    cr_assert_eq(RUN("show", "mlp"), 1);
    cr_expect(strstr(out, "no model \"mlp\"") != NULL, "%s", out);
}

Test(optctl, creates_models_of_any_policy_and_shows_them, .init = start, .fini = stop)
{
    static const char policy[] = "bounded,loss=fail,min_workers=2,staleness=4,damping,"
                                 "delay_compensation=0.04";
    static const char *const wrong[] = {
        "fast",           "sync,samples=x", "sync,samples",    "async,damping=1",
        "sync,loss=give", "sync,,backup=1", "sync,patience=1", "sync,atomic=half"
    };
    cr_assert_eq(RUN("create", "mlp", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                     "--policy", policy),
                 0, "%s", out);
    cr_assert_eq(RUN("show", "mlp"), 0, "%s", out);
    cr_expect(strstr(out, policy) != NULL, "%s", out);
    cr_assert_eq(RUN("--json", "show", "mlp"), 0, "%s", out);
    json_t *model = read_json();
    cr_expect_str_eq(text_of(model, "mode"), "bounded");
    cr_expect_eq(json_integer_value(json_object_get(model, "staleness")), 4);
    json_decref(model);
    cr_assert_eq(RUN("create", "mlp", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                     "--policy", "sync,samples=100"),
                 1);
    cr_expect(strstr(out, "its mode is bounded, not sync") != NULL, "%s", out);
    cr_assert_eq(RUN("create", "streamed", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                     "--policy", "sync,atomic=shard"),
                 0, "%s", out);
    cr_assert_eq(RUN("show", "streamed"), 0, "%s", out);
    cr_expect(strstr(out, "atomic=shard") != NULL, "%s", out);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(RUN("create", "m", "--spec", "sgd(lr=1)", "--tensor", "w:4",
                         "--policy", wrong[i]),
                     64, "%s: %s", wrong[i], out);
    }
}

/* Which life of a worker it is, and how often its connection was replaced. */
Test(optctl, shows_the_lives_of_a_worker, .init = start, .fini = stop)
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
        sockets[i] = raw_connect(server.port);
        for (size_t k = 0; k < 2; k++) {
            struct raw_reply reply;
            cr_assert(raw_request(sockets[i], requests[k], NULL, 0));
            cr_assert(raw_receive(sockets[i], &reply));
            cr_assert_neq(reply.reply.message, OPT_MESSAGE_ERROR, "%s",
                          reply.reply.body.error.text);
            raw_reply_fini(&reply);
        }
    }
    cr_assert_eq(RUN("show", "mlp"), 0, "%s", out);
    cr_expect_not_null(strstr(out, "worker         a (connected), 0 applied"), "%s",
                       out);
    cr_expect_not_null(
        strstr(out, "incarnation 2, connected again 1 times, 0 pushes sent again\n"),
        "%s", out);
    for (size_t i = 0; i < 3; i++) {
        close(sockets[i]);
    }
}

Test(optctl, changes_what_a_worker_trains_with, .init = start, .fini = stop)
{
    create();
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_options options = optclient_options_default();
    options.worker = "a";
    cr_assert_eq(optclient_connect(address, &options, &client), OPTCLIENT_OK);
    cr_assert_eq(optclient_open(client, "mlp", 1, &model), OPTCLIENT_OK, "%s",
                 optclient_error());
    cr_assert_eq(RUN("set", "mlp", "lr=0.5", "--at-step", "2"), 0, "%s", out);
    cr_expect_str_eq(out, "from update 2 on\n");
    cr_assert_eq(RUN("--json", "set", "mlp", "lr=0.25",
                     "tensors(\"scale\", lr_scale=2)", "--at-step", "3"),
                 0, "%s", out);
    cr_expect_str_eq(out, "{\"step\": 3}\n");
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
    cr_expect(strstr(out, "changed at     update 2: sgd(lr=0.5)\n") != NULL, "%s", out);
}

Test(optctl, refuses_with_a_sentence_and_its_own_exit_status, .init = start,
     .fini = stop)
{
    char path[64];
    create();
    write_file("rule: adam\n", path);
    cr_expect_eq(RUN("set", "mlp", "rl=0.5"), 1);
    cr_expect(strstr(out, "did you mean 'lr'") != NULL ||
                  strstr(out, "it has lr") != NULL,
              "%s", out);
    cr_expect_eq(RUN("set", "mlp", "lookahead(5)"), 1);
    cr_expect(strstr(out, "slow_param") != NULL, "%s", out);
    cr_expect_eq(RUN("create", "b", "--spec", "adma", "--tensor", "w:1"), 1);
    cr_expect(strstr(out, "did you mean 'adam'") != NULL, "%s", out);
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
    cr_expect(strstr(out, "no such file cannot be opened") != NULL, "%s", out);
    cr_expect_eq(RUN("spec"), 64);
    cr_expect_eq(RUN("spec", "adam", "--file", path), 64);
    cr_expect_eq(RUN("spec", "adma"), 1);
    cr_expect(strstr(out, "did you mean 'adam'") != NULL, "%s", out);
    cr_expect_eq(RUN("rules", "--profile", "nothing"), 64);
    cr_expect_eq(RUN("rules", "adam", "--profile", "torch"), 64);
    cr_expect_eq(RUN("shwo", "mlp"), 64);
    cr_expect_eq(RUN("rules", "nothing"), 64);
    cr_expect_eq(RUN("--server", "nowhere", "list"), 1);
    cr_expect_eq(unlink(path), 0);
}

Test(optctl, tells_counters_and_rules, .init = start, .fini = stop)
{
    cr_assert_eq(RUN("stats"), 0);
    cr_expect(strstr(out, "requests") != NULL, "%s", out);
    cr_assert_eq(RUN("--json", "stats"), 0);
    json_t *counters = read_json();
    cr_expect(json_is_integer(json_object_get(counters, "requests")));
    json_decref(counters);
    cr_assert_eq(RUN("rules"), 0);
    cr_expect(strstr(out, "amsbound") != NULL && strstr(out, "rangerlars") != NULL);
    cr_assert_eq(RUN("--json", "rules", "adam"), 0);
    json_t *rule = read_json();
    const json_t *beta1 = json_object_get(json_object_get(rule, "options"), "beta1");
    cr_expect_str_eq(text_of(beta1, "default"), "0.9");
    cr_expect_str_eq(text_of(beta1, "range"), "[0, 1)");
    json_decref(rule);
    cr_assert_eq(RUN("--json", "rules"), 0);
    json_t *all = read_json();
    cr_expect_eq(json_array_size(json_object_get(all, "rules")), (size_t)13);
    json_decref(all);
    cr_assert_eq(RUN("rules", "lamb"), 0);
    cr_expect(strstr(out, "lamb is adam(") != NULL, "%s", out);
}

Test(optctl, takes_specifications_from_files_and_gives_them_back, .init = start,
     .fini = stop)
{
    static const char text[] = "rule: torch.rmsprop\nmomentum: 0.9\nwarmup: 10\n";
    static const char canonical[] =
        "rmsprop(lr=0.01, rho=0.99, eps_mode=outside_sqrt, momentum=0.9, "
        "momentum_form=heavy_ball) + warmup(10)";
    char path[64], again[64];
    write_file(text, path);
    cr_assert_eq(RUN("create", "m", "--spec-file", path, "--tensor", "w:4"), 0, "%s",
                 out);
    cr_assert_eq(RUN("--json", "show", "m"), 0, "%s", out);
    json_t *model = read_json();
    cr_expect_str_eq(text_of(model, "specification"), canonical);
    json_decref(model);
    cr_assert_eq(RUN("show", "m", "--yaml"), 0, "%s", out);
    write_file(out, again);
    cr_assert_eq(RUN("--json", "spec", "--file", again), 0, "%s", out);
    json_t *forms = read_json();
    cr_expect_str_eq(text_of(forms, "expression"), canonical);
    cr_expect(strstr(text_of(forms, "message"), "word: \"heavy_ball\"") != NULL, "%s",
              out);
    json_decref(forms);
    cr_assert_eq(RUN("spec", canonical), 0, "%s", out);
    cr_expect(strstr(out, "\nrule: rmsprop\nlr: 0.01\n") != NULL, "%s", out);
    cr_expect_eq(unlink(path), 0);
    cr_expect_eq(unlink(again), 0);
}

Test(optctl, names_the_file_and_the_line, .init = start, .fini = stop)
{
    char path[64], place[80];
    write_file("rule: adam\ncosine: {stpes: 100}\n", path);
    cr_expect_eq(RUN("create", "m", "--spec-file", path, "--tensor", "w:4"), 1);
    snprintf(place, sizeof(place), "%s:2: ", path);
    cr_expect(strstr(out, place) != NULL, "%s", out);
    cr_expect(strstr(out, "did you mean 'steps'") != NULL, "%s", out);
    cr_expect_eq(unlink(path), 0);
}

Test(optctl, lists_profiles_and_what_they_do_not_offer, .init = start, .fini = stop)
{
    cr_assert_eq(RUN("rules", "--profile", "optax"), 0, "%s", out);
    cr_expect(strstr(out, "adam + decay(0.0001, decoupled)") != NULL, "%s", out);
    cr_expect(strstr(out, "not offered: it multiplies") != NULL, "%s", out);
    cr_expect(strstr(out, "torch.") == NULL, "%s", out);
    cr_assert_eq(RUN("--json", "rules", "--profile", "keras"), 0, "%s", out);
    json_t *rows = read_json();
    cr_expect_gt(json_array_size(rows), (size_t)8);
    cr_expect_str_eq(text_of(json_array_get(rows, 0), "name"), "keras.sgd");
    cr_expect(json_is_null(json_object_get(json_array_get(rows, 0), "expression")));
    json_decref(rows);
    cr_assert_eq(RUN("rules", "torch.radam"), 0, "%s", out);
    cr_expect(strstr(out, "torch.radam is radam(") != NULL, "%s", out);
}
