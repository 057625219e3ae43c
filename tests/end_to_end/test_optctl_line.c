/* The command line of optctl: help, options, JSON, the environment, completion. All of
 * it goes through the one table of commands, so that these tests go over that table.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "common/counters.h"
#include "tests/support/operator.h"
#include "tools/optctl/commands.h"
#include "tools/optctl/entries.h"

static const struct command *all_commands(size_t *count)
{
    entries_register();
    const struct command *commands = commands_table(count);
    cr_assert_gt(*count, 0U);
    return commands;
}

static bool says(const char *text)
{
    return strstr(operator_out, text) != NULL;
}

static int run_shell(const char *command)
{
    return system(command); /* NOLINT: of our own making */
}

static void create(const char *name)
{
    cr_assert_eq(RUN("create", name, "--spec", "sgd(lr=5e-4)", "--tensor", "w:2x3"), 0,
                 "%s", operator_out);
}

/* ---------------------------------------------------------------- help */

Test(optctl_line, helps_with_every_command_wherever_it_is_asked)
{
    size_t count;
    const struct command *commands = all_commands(&count);
    for (size_t i = 0; i < count; i++) {
        const char *name = commands[i].name;
        char usage[64], *text;
        snprintf(usage, sizeof(usage), "usage: optctl %s", name);
        cr_expect_eq(RUN("help", name), 0, "%s", operator_out);
        cr_expect(strncmp(operator_out, usage, strlen(usage)) == 0, "%s", operator_out);
        cr_expect(says(commands[i].summary) || strlen(commands[i].summary) > 79, "%s",
                  operator_out);
        for (size_t k = 0; commands[i].options[k].name != NULL; k++) {
            char option[64];
            snprintf(option, sizeof(option), "--%s", commands[i].options[k].name);
            cr_expect(says(option), "%s: %s", option, operator_out);
        }
        text = strdup(operator_out);
        cr_expect_eq(RUN(name, "--help"), 0);
        cr_expect_str_eq(operator_out, text);
        cr_expect_eq(RUN(name, "-h"), 0);
        cr_expect_str_eq(operator_out, text);
        cr_expect_eq(RUN("-h", name), 0);
        cr_expect_str_eq(operator_out, text);
        free(text);
    }
}

Test(optctl_line, lists_all_commands_without_one)
{
    static const char *const ways[] = { "help", "-h", "--help" };
    size_t count;
    const struct command *commands = all_commands(&count);
    for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
        cr_expect_eq(RUN(ways[w]), 0, "%s: %s", ways[w], operator_out);
        for (size_t i = 0; i < count; i++) {
            char line[64];
            snprintf(line, sizeof(line), "\n  %-12s", commands[i].name);
            cr_expect(says(line), "%s: %s", ways[w], line);
        }
    }
    cr_expect_eq(RUN("help", "nothing"), 64);
    cr_expect_eq(RUN("--version"), 0);
    cr_expect(strncmp(operator_out, "optctl ", 7) == 0, "%s", operator_out);
}

Test(optctl_line, has_one_line_no_longer_than_a_terminal)
{
    cr_assert_eq(RUN("help"), 0);
    for (const char *line = operator_out; *line != '\0';) {
        size_t size = strcspn(line, "\n");
        cr_expect_leq(size, (size_t)80, "%.*s", (int)size, line);
        line += size + 1;
    }
}

/* Every command has an entry in the manual, and every option of it stands there. */
Test(optctl_line, has_a_manual_that_names_everything)
{
    static char manual[1 << 16];
    size_t count;
    const struct command *commands = all_commands(&count);
    FILE *file = fopen("tools/optctl/optctl.1", "r");
    cr_assert_not_null(file);
    manual[fread(manual, 1, sizeof(manual) - 1, file)] = '\0';
    cr_assert_eq(fclose(file), 0);
    for (size_t i = 0; i < count; i++) {
        char text[64];
        snprintf(text, sizeof(text), "Cm %s", commands[i].name);
        cr_expect_not_null(strstr(manual, text), "%s", text);
        for (size_t k = 0; commands[i].options[k].name != NULL; k++) {
            snprintf(text, sizeof(text), "Fl -%s", commands[i].options[k].name);
            cr_expect_not_null(strstr(manual, text), "%s", text);
        }
    }
}

/* The lines that a program of sed finds in a file, run one after the other. */
static int run_lines(const char *program, const char *file)
{
    char command[1024];
    snprintf(command, sizeof(command),
             "PATH=${OPTIMD_BUILD-build}:$PATH; lines=$(sed -n '%s' %s) && "
             "test -n \"$lines\" && printf '%%s\\n' \"$lines\" | sh -eu >/dev/null",
             program, file);
    return run_shell(command);
}

Test(optctl_line, has_examples_that_work, .init = operator_start, .fini = operator_stop)
{
    cr_expect_eq(run_lines("/^\\.Bd -literal/,/^\\.Ed/{/^\\./d; s/\\\\e$/\\\\/; p}",
                           "tools/optctl/optctl.1"),
                 0);
}

Test(optctl_line, does_what_the_pages_do_with_it, .init = operator_start,
     .fini = operator_stop)
{
    cr_assert_eq(RUN("create", "mlp", "--spec", "adam", "--tensor", "w:4"), 0, "%s",
                 operator_out);
    cr_expect_eq(run_lines("s/^ *\\(optctl .*\\)/\\1/p", "docs/optimizers.md"), 0);
}

/* The whole line is read with the options of all commands first. */
Test(optctl_line, gives_one_name_one_meaning)
{
    size_t count;
    const struct command *commands = all_commands(&count);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; commands[i].options[k].name != NULL; k++) {
            const struct option_entry *one = &commands[i].options[k];
            cr_expect_lt(k, (size_t)OPTIONS_MAX - 1, "%s", commands[i].name);
            for (size_t j = 0; j < count; j++) {
                for (size_t l = 0; commands[j].options[l].name != NULL; l++) {
                    const struct option_entry *other = &commands[j].options[l];
                    cr_expect(strcmp(one->name, other->name) != 0 ||
                                  (one->value == NULL) == (other->value == NULL),
                              "%s of %s and of %s", one->name, commands[i].name,
                              commands[j].name);
                }
            }
            for (const struct option_entry *all = commands_options(); all->name != NULL;
                 all++) {
                cr_expect_str_neq(one->name, all->name);
            }
        }
    }
}

/* ---------------------------------------------------------------- options */

Test(optctl_line, takes_options_anywhere, .init = operator_start, .fini = operator_stop)
{
    const char *address = operator_server.address;
    create("m");
    cr_assert_eq(setenv("OPTIMD_SERVER", "127.0.0.1:1", 1), 0);
    cr_assert_eq(RUN("show", "m", "--yaml", "--server", address), 0, "%s",
                 operator_out);
    char *yaml = strdup(operator_out);
    cr_expect_eq(RUN("--yaml", "--server", address, "show", "m"), 0, "%s",
                 operator_out);
    cr_expect_str_eq(operator_out, yaml);
    cr_expect_eq(RUN("show", "-s", address, "--yaml", "--", "m"), 0, "%s",
                 operator_out);
    cr_expect_str_eq(operator_out, yaml);
    free(yaml);
    cr_expect_eq(RUN("list", "--yaml", "--server", address), 64); /* another's */
    cr_expect(says("unrecognized option") && says("optctl help list"), "%s",
              operator_out);
    cr_expect_eq(RUN("--nothing", "list"), 64);
    cr_expect_eq(RUN("list", "--timeout", "soon"), 64);
}

Test(optctl_line, asks_the_daemon_that_the_environment_names, .init = operator_start,
     .fini = operator_stop)
{
    cr_expect_eq(RUN("ping"), 0, "%s", operator_out);
    cr_expect(says(operator_server.address) && says("answered in"), "%s", operator_out);
    cr_expect_eq(RUN("--server", "127.0.0.1:1", "--timeout", "50ms", "ping"), 1);
}

/* Who listens is not enough: the engine is asked. */
Test(optctl_line, pings_in_vain_where_nobody_answers, .init = operator_start,
     .fini = operator_stop)
{
    daemon_signal(&operator_server, SIGSTOP);
    cr_expect_eq(RUN("ping", "--timeout", "200ms"), 1, "%s", operator_out);
    daemon_signal(&operator_server, SIGCONT);
    cr_expect_eq(RUN("ping"), 0, "%s", operator_out);
}

Test(optctl_line, tells_a_wrong_address_from_one_where_nobody_is)
{
    static const char *const wrong[] = { "nowhere", "127.0.0.1:x", "127.0.0.1:70000",
                                         "unix:", ":7070" };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(RUN("--server", wrong[i], "list"), 64, "%s: %s", wrong[i],
                     operator_out);
    }
    cr_expect_eq(RUN("--server", "127.0.0.1:1", "--timeout", "50ms", "list"), 1);
}

Test(optctl_line, says_when_its_answer_cannot_be_written)
{
    cr_expect_eq(run_shell("${OPTIMD_BUILD-build}/optctl help >/dev/full 2>/dev/null; "
                           "test $? -eq 1"),
                 0);
    cr_expect_eq(run_shell("${OPTIMD_BUILD-build}/optctl rules --json >/dev/full "
                           "2>/dev/null; test $? -eq 1"),
                 0);
}

/* ---------------------------------------------------------------- what is printed */

Test(optctl_line, answers_with_json_everywhere, .init = operator_start,
     .fini = operator_stop)
{
    char file[64];
    operator_write_file("", file);
    /* Each command once, in an order that works. */
    const char *const lines[][8] = {
        { "create", "m", "--spec", "sgd(lr=5e-4)", "--tensor", "w:2x3" },
        { "list" },
        { "list", "--names" },
        { "show", "m" },
        { "export", "m", file },
        { "import", "n", file, "--spec", "sgd" },
        { "set", "m", "lr=0.1" },
        { "stats" },
        { "ping" },
        { "reload" },
        { "rules" },
        { "rules", "lamb" },
        { "rules", "torch.adam" },
        { "rules", "--profile", "keras" },
        { "spec", "adam" },
        { "help" },
        { "help", "show" },
        { "delete", "m" },
        { "--version" },
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const char *with[10] = { "--json" };
        memcpy(with + 1, lines[i], sizeof(lines[i]));
        cr_assert_eq(operator_run(with), 0, "%s: %s", lines[i][0], operator_out);
        json_decref(operator_json());
    }
    size_t count, met = 0;
    const struct command *commands = all_commands(&count);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < sizeof(lines) / sizeof(lines[0]); k++) {
            if (strcmp(lines[k][0], commands[i].name) == 0) {
                met++;
                break;
            }
        }
    }
    cr_expect_eq(met, count - 6,
                 "all but completion, which is a script, what takes a data "
                 "directory (store_inspection, checkpoints), cert (tls) and token");
}

Test(optctl_line, says_as_json_what_went_wrong, .init = operator_start,
     .fini = operator_stop)
{
    static const struct {
        const char *line[4];
        int exit;
        const char *status;
    } wrong[] = { { { "show", "nothing" }, 1, "NOT_FOUND" },
                  { { "show", "a", "b" }, 64, "USAGE" },
                  { { "spec", "adma" }, 1, "INVALID_ARGUMENT" } };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *with[6] = { "--json" };
        memcpy(with + 1, wrong[i].line, sizeof(wrong[i].line));
        cr_assert_eq(operator_run(with), wrong[i].exit, "%s", operator_out);
        cr_expect_str_eq(operator_out, operator_error, "nothing for a pipeline");
        json_t *answer = operator_json();
        const json_t *error = json_object_get(answer, "error");
        cr_expect_str_eq(operator_text(error, "status"), wrong[i].status);
        cr_expect_gt(strlen(operator_text(error, "message")), (size_t)0);
        json_decref(answer);
    }
}

Test(optctl_line, prints_the_shortest_number_that_reads_back_the_same,
     .init = operator_start, .fini = operator_stop)
{
    create("m");
    cr_assert_eq(RUN("--json", "show", "m"), 0);
    cr_expect(says("\"lr\": 0.0005,"), "%s", operator_out);
    cr_assert_eq(RUN("set", "m", "lr=0.30000000000000004"), 0, "%s", operator_out);
    cr_assert_eq(RUN("show", "m", "--json"), 0);
    cr_expect(says("\"lr\": 0.30000000000000004,"), "%s", operator_out);
    cr_assert_eq(RUN("show", "m"), 0);
    cr_expect(says("next update    lr 0.30000000000000004\n"), "%s", operator_out);
    cr_assert_eq(RUN("create", "d", "--spec", "sgd", "--tensor", "w:2", "--policy",
                     "async,delay_compensation=0.123456789"),
                 0);
    cr_assert_eq(RUN("show", "d"), 0);
    cr_expect(says(",delay_compensation=0.123456789\n"), "%s", operator_out);
    cr_assert_eq(RUN("rules", "adam", "--json"), 0);
    cr_expect(says("\"exclusiveMaximum\": 1") && says("\"default\": 0.999") &&
                  says("\"default\": 1e-08"),
              "%s", operator_out);
}

/* Where the columns of a line begin that is split by two spaces or more. */
static size_t column_of(const char *line, const char *word)
{
    const char *at = strstr(line, word);
    cr_assert_not_null(at, "%s: %s", word, operator_out);
    size_t column = 0;
    for (; line < at; line++) {
        column += ((unsigned char)*line & 0xc0u) != 0x80u;
    }
    return column;
}

Test(optctl_line, aligns_the_list_whatever_names_are_as_long, .init = operator_start,
     .fini = operator_stop)
{
    static const char longest[] = "a-model-with-a-name-of-more-than-24-characters";
    create("short");
    create("größer");
    create(longest);
    cr_assert_eq(RUN("list"), 0);
    size_t column = column_of(operator_out, "SPECIFICATION"), rows = 0;
    for (const char *line = strchr(operator_out, '\n') + 1; *line != '\0'; rows++) {
        cr_expect_eq(column_of(line, "sgd("), column, "%s", operator_out);
        line = strchr(line, '\n') + 1;
    }
    cr_expect_eq(rows, (size_t)3);
    cr_assert_eq(RUN("list", "--names"), 0);
    cr_expect(says("größer\n") && says("short\n") && !says("sgd"), "%s", operator_out);
}

Test(optctl_line, counts_workers_as_the_models_do, .init = operator_start,
     .fini = operator_stop)
{
    struct optclient *client;
    struct optclient_model *model;
    create("m"); /* optctl itself was a worker of it */
    cr_assert_eq(RUN("--json", "stats"), 0);
    json_t *counters = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(counters, "workers")), 0);
    cr_expect(json_is_integer(json_object_get(counters, "workers_known")));
    json_decref(counters);
    cr_assert_eq(optclient_connect(operator_server.address, NULL, &client),
                 OPTCLIENT_OK);
    cr_assert_eq(optclient_open(client, "m", 1, &model), OPTCLIENT_OK);
    cr_assert_eq(RUN("--json", "stats"), 0);
    counters = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(counters, "workers")), 1);
    json_decref(counters);
    optclient_model_close(model);
    optclient_close(client);
}

Test(optctl_line, explains_every_counter, .init = operator_start, .fini = operator_stop)
{
    size_t count;
    const struct opt_counter_text *texts = opt_counter_texts(&count);
    cr_assert_eq(RUN("--json", "stats"), 0);
    json_t *counters = operator_json();
    cr_expect_eq(json_object_size(counters), count,
                 "one is not explained in common/counters.c");
    for (size_t i = 0; i < count; i++) {
        cr_expect_not_null(json_object_get(counters, texts[i].name), "%s is no counter",
                           texts[i].name);
    }
    json_decref(counters);
    cr_assert_eq(RUN("stats"), 0);
    for (size_t i = 0; i < count; i++) {
        cr_expect(says(texts[i].text), "%s", texts[i].text);
    }
}

/* ---------------------------------------------------------------- completion */

/* Whether this is among the candidates, or what bash makes of them. */
static bool offered(const char *word)
{
    size_t size = strlen(word);
    for (const char *line = operator_out; *line != '\0';) {
        if (strncmp(line, word, size) == 0 && strchr("\t\n", line[size]) != NULL) {
            return true;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return false;
}

#define COMPLETE(...) cr_assert_eq(RUN("completion", "words", "--", __VA_ARGS__), 0)

Test(optctl_line, completes_what_can_stand_there, .init = operator_start,
     .fini = operator_stop)
{
    create("digits");
    COMPLETE("");
    cr_expect(offered("list") && offered("completion"), "%s", operator_out);
    COMPLETE("--json", "s");
    cr_expect(offered("show") && offered("stats") && !offered("list"), "%s",
              operator_out);
    COMPLETE("show", "--");
    cr_expect(offered("--yaml") && offered("--server") && !offered("--spec"), "%s",
              operator_out);
    COMPLETE("show", "d");
    cr_expect(offered("digits"), "%s", operator_out);
    COMPLETE("show", "digits", "");
    cr_expect_str_eq(operator_out, "");
    COMPLETE("create", "m", "--policy", "bounded,st");
    cr_expect(offered("bounded,staleness="), "%s", operator_out);
    COMPLETE("create", "m", "--policy=sync,loss=f");
    cr_expect(offered("--policy=sync,loss=fail"), "%s", operator_out);
    COMPLETE("create", "m", "--spec-file", "");
    cr_expect(offered("FILES"), "%s", operator_out);
    COMPLETE("rules", "torch.sp");
    cr_expect(offered("torch.sparse_adam"), "%s", operator_out);
    COMPLETE("rules", "--profile", "k");
    cr_expect(offered("keras"), "%s", operator_out);
    COMPLETE("--server", "127.0.0.1:1", "show", "");
    cr_expect_str_eq(operator_out, "", "nobody is there");
}

/* What a shell's function makes of a line whose cursor is at its end. */
static void shell_completes(const char *shell, const char *script, const char *line)
{
    char command[1024], path[64];
    const char *build = getenv("OPTIMD_BUILD");
    snprintf(command, sizeof(command), script, build == NULL ? "build" : build, line);
    operator_write_file(command, path);
    snprintf(command, sizeof(command), "%s %s", shell, path);
    FILE *said = popen(command, "r"); /* NOLINT: of our own making */
    cr_assert_not_null(said);
    size_t size = fread(operator_out, 1, sizeof(operator_out) - 1, said);
    operator_out[size] = '\0';
    cr_expect_eq(pclose(said), 0);
    cr_expect_eq(unlink(path), 0);
}

static void bash_completes(const char *line)
{
    shell_completes("bash",
                    "PATH=%s:$PATH; compopt() { :; }; . <(optctl completion bash)\n"
                    "COMP_LINE='%s'; COMP_POINT=${#COMP_LINE}; _optctl\n"
                    "printf '%%s\\n' \"${COMPREPLY[@]}\"\n",
                    line);
}

/* Line by words; zsh's own functions are stood in for. */
static void zsh_completes(const char *words)
{
    shell_completes(
        "zsh -f",
        "PATH=%s:$PATH; compdef() { :; }; . <(optctl completion zsh)\n"
        "_describe() { print -l -- $whole $open; }; _files() { echo FILES; }\n"
        "words=(%s); CURRENT=${#words}; _optctl\n",
        words);
}

Test(optctl_line, completes_in_bash, .init = operator_start, .fini = operator_stop)
{
    create("digits");
    bash_completes("optctl li");
    cr_expect_str_eq(operator_out, "list\n");
    bash_completes("optctl show ");
    cr_expect_str_eq(operator_out, "digits\n");
    bash_completes("optctl create m --policy sync,loss=");
    cr_expect_str_eq(operator_out, "shrink\nwait\nfail\n"); /* after the "=" */
    bash_completes("optctl show --y");
    cr_expect_str_eq(operator_out, "--yaml\n");
}

Test(optctl_line, completes_in_zsh, .init = operator_start, .fini = operator_stop)
{
    create("digits");
    zsh_completes("optctl li");
    cr_expect_str_eq(
        operator_out,
        "list:all models with their steps, sizes, workers and specifications\n");
    zsh_completes("optctl show ''");
    cr_expect_str_eq(operator_out, "digits:sgd(lr=0.0005)\n");
    zsh_completes("optctl create m --policy sync,loss=f");
    cr_expect_str_eq(operator_out, "sync,loss=fail:\n");
    zsh_completes("optctl spec --file ''");
    cr_expect_str_eq(operator_out, "FILES\n");
}

Test(optctl_line, knows_two_shells)
{
    cr_expect_eq(RUN("completion", "fish"), 64);
    cr_expect_eq(RUN("completion", "bash", "zsh"), 64);
    cr_expect_eq(RUN("completion"), 64);
}
