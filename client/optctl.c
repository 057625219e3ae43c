/* optctl — the operator's command: what models there are, and what shall become of
 * them. Reads the command line, asks the daemon, prints; one thread. optctl(1) is its
 * manual. Exits with 0, with 1 if the daemon refused or could not be reached, and with
 * 64 if it was called wrongly.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl.h"

enum { EXIT_FAILED = 1, EXIT_WRONG = 64, CONNECT_MS = 5000, RANK_MAX = 8 };

struct ctl {
    const char *server;
    bool json;
    int argc; /* the command's arguments, its name first */
    char **argv;
    struct optclient *client;
};

static int wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("optctl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\nSee optctl --help.\n", stderr);
    va_end(arguments);
    return EXIT_WRONG;
}

static int failed(void)
{
    fprintf(stderr, "optctl: %s\n", optclient_error());
    return EXIT_FAILED;
}

static int refused(const struct opt_error *error)
{
    fprintf(stderr, "optctl: %s\n", error->text);
    return EXIT_FAILED;
}

static int printed(bool well)
{
    if (well && fflush(stdout) == 0) {
        return EXIT_SUCCESS;
    }
    fputs("optctl: the answer cannot be written\n", stderr);
    return EXIT_FAILED;
}

/* A whole decimal number. */
static bool read_number(const char *text, uint64_t most, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *out <= most;
}

/* worker NULL: one of its own; "": only to look and to administer. */
static bool connect_as(struct ctl *ctl, const char *worker)
{
    struct optclient_options options = optclient_options_default();
    options.worker = worker;
    options.connect_timeout_ms = CONNECT_MS;
    return optclient_connect(ctl->server, &options, &ctl->client) == OPTCLIENT_OK;
}

/* ---------------------------------------------------------------- commands */

static int run_list(struct ctl *ctl)
{
    struct optclient_model_info *models;
    size_t count;
    if (!connect_as(ctl, "") ||
        optclient_list(ctl->client, &models, &count) != OPTCLIENT_OK) {
        return failed();
    }
    bool well = ctl_print_models(models, count, ctl->json);
    optclient_list_free(models);
    return printed(well);
}

static int run_show(struct ctl *ctl)
{
    static const struct option options[] = { { "yaml", no_argument, NULL, 'y' },
                                             { 0 } };
    struct optclient_description *model;
    struct opt_error error;
    bool yaml = false;
    int option, status;
    optind = 0;
    while ((option = getopt_long(ctl->argc, ctl->argv, "", options, NULL)) != -1) {
        if (option != 'y') {
            return EXIT_WRONG;
        }
        yaml = true;
    }
    if (ctl->argc - optind != 1) {
        return wrong("show needs one model");
    }
    if (!connect_as(ctl, "") ||
        optclient_describe(ctl->client, ctl->argv[optind], &model) != OPTCLIENT_OK) {
        return failed();
    }
    if (!yaml) {
        status = printed(ctl_print_description(model, ctl->json));
    } else if (ctl_print_yaml(model->specification, &error)) {
        status = printed(true);
    } else {
        status = refused(&error);
    }
    optclient_description_free(model);
    return status;
}

static int run_stats(struct ctl *ctl)
{
    struct optclient_counter *counters;
    size_t count;
    if (!connect_as(ctl, "") ||
        optclient_statistics(ctl->client, &counters, &count) != OPTCLIENT_OK) {
        return failed();
    }
    bool well = ctl_print_counters(counters, count, ctl->json);
    optclient_statistics_free(counters);
    return printed(well);
}

static int run_delete(struct ctl *ctl)
{
    if (!connect_as(ctl, "") ||
        optclient_delete(ctl->client, ctl->argv[1]) != OPTCLIENT_OK) {
        return failed();
    }
    return EXIT_SUCCESS;
}

static int run_rules(struct ctl *ctl)
{
    static const struct option options[] = {
        { "profile", required_argument, NULL, 'p' }, { 0 }
    };
    const char *profile = NULL;
    bool found, well;
    int option;
    optind = 0;
    while ((option = getopt_long(ctl->argc, ctl->argv, "", options, NULL)) != -1) {
        if (option != 'p') {
            return EXIT_WRONG;
        }
        profile = optarg;
    }
    const char *name = optind < ctl->argc ? ctl->argv[optind] : NULL;
    if (ctl->argc - optind > (profile == NULL ? 1 : 0)) {
        return wrong("rules takes one name, or --profile with one");
    }
    if (profile != NULL) {
        well = ctl_print_profile(profile, ctl->json, &found);
        return found ? printed(well) : wrong("there is no profile '%s'", profile);
    }
    well = ctl_print_rules(name, ctl->json, &found);
    if (!found) {
        return wrong("there is no rule or preset '%s'; `optctl rules` lists them",
                     name);
    }
    return printed(well);
}

static int run_spec(struct ctl *ctl)
{
    static const struct option options[] = { { "file", required_argument, NULL, 'f' },
                                             { 0 } };
    const char *file = NULL;
    struct opt_spec spec;
    struct opt_error error;
    int option;
    optind = 0;
    while ((option = getopt_long(ctl->argc, ctl->argv, "", options, NULL)) != -1) {
        if (option != 'f') {
            return EXIT_WRONG;
        }
        file = optarg;
    }
    if (ctl->argc - optind != (file == NULL ? 1 : 0)) {
        return wrong("spec takes an expression, or --file with a YAML file");
    }
    enum opt_status status = file != NULL
                                 ? ctl_read_spec(file, &spec, &error)
                                 : opt_spec_parse(ctl->argv[optind], &spec, &error);
    return status == OPT_OK ? printed(ctl_print_spec(&spec, ctl->json))
                            : refused(&error);
}

/* The arguments from one on, joined by commas; to be freed. */
static char *join(char *const *arguments, int count)
{
    size_t size = 1;
    for (int i = 0; i < count; i++) {
        size += strlen(arguments[i]) + 2;
    }
    char *text = malloc(size), *to = text;
    for (int i = 0; text != NULL && i < count; i++) {
        to += snprintf(to, size - (size_t)(to - text), "%s%s", i > 0 ? ", " : "",
                       arguments[i]);
    }
    return text;
}

static int run_set(struct ctl *ctl)
{
    static const struct option options[] = {
        { "at-step", required_argument, NULL, 's' }, { 0 }
    };
    uint64_t at_step = 0, step;
    int option;
    optind = 0;
    while ((option = getopt_long(ctl->argc, ctl->argv, "", options, NULL)) != -1) {
        if (option != 's') {
            return EXIT_WRONG;
        }
        if (!read_number(optarg, UINT64_MAX, &at_step) || at_step == 0) {
            return wrong("--at-step is the number of an update, not '%s'", optarg);
        }
    }
    if (ctl->argc - optind < 2) {
        return wrong("set needs a model and what to change, such as lr=5e-4");
    }
    const char *model = ctl->argv[optind];
    char *change = join(ctl->argv + optind + 1, ctl->argc - optind - 1);
    if (change == NULL || !connect_as(ctl, "") ||
        optclient_set(ctl->client, model, change, at_step, &step) != OPTCLIENT_OK) {
        free(change);
        return failed();
    }
    free(change);
    printf(ctl->json ? "{\"step\": %" PRIu64 "}\n" : "from update %" PRIu64 " on\n",
           step);
    return printed(true);
}

/* ---------------------------------------------------------------- create */

struct creation {
    const char *specification;
    char from_file[OPT_YAML_BYTES]; /* the same, if it was read from one */
    struct optclient_policy policy;
    struct optclient_tensor *tensors; /* with names and shapes of their own */
    size_t count;
};

static void creation_fini(struct creation *creation)
{
    for (size_t i = 0; i < creation->count; i++) {
        free((void *)(uintptr_t)creation->tensors[i].name);
        free((void *)(uintptr_t)creation->tensors[i].shape);
    }
    free(creation->tensors);
}

/* "fc1.weight:128x784"; nothing after the colon: a scalar. */
static int add_tensor(struct creation *creation, const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t shape[RANK_MAX];
    size_t rank = 0;
    if (colon == NULL) {
        return wrong("a tensor is NAME:SHAPE, such as fc1.weight:128x784, not '%s'",
                     text);
    }
    for (const char *at = colon + 1; *at != '\0';) {
        char digits[24] = "";
        size_t size = strcspn(at, "x");
        if (rank == RANK_MAX || size >= sizeof(digits)) {
            return wrong("the shape of '%s' has more than %d dimensions", text,
                         RANK_MAX);
        }
        memcpy(digits, at, size);
        bool ends = at[size] == '\0';
        if (!read_number(digits, UINT64_MAX, &shape[rank]) || shape[rank] == 0 ||
            (!ends && at[size + 1] == '\0')) {
            return wrong("the shape of '%s' is not whole numbers joined by x", text);
        }
        rank++;
        at += ends ? size : size + 1;
    }
    struct optclient_tensor *more =
        realloc(creation->tensors, (creation->count + 1) * sizeof(*more));
    if (more != NULL) {
        creation->tensors = more;
        struct optclient_tensor *tensor = &more[creation->count++];
        uint64_t *copy = malloc(sizeof(shape));
        *tensor = (struct optclient_tensor){
            .name = strndup(text, (size_t)(colon - text)),
            .shape = copy,
            .rank = rank,
        };
        if (copy != NULL && tensor->name != NULL) {
            memcpy(copy, shape, sizeof(shape));
            return EXIT_SUCCESS;
        }
    }
    fputs("optctl: no memory\n", stderr);
    return EXIT_FAILED;
}

static int read_specification(struct creation *creation, const char *path)
{
    struct opt_spec spec;
    struct opt_error error;
    if (ctl_read_spec(path, &spec, &error) != OPT_OK) {
        return refused(&error);
    }
    opt_spec_print(&spec, creation->from_file, sizeof(creation->from_file));
    creation->specification = creation->from_file;
    return EXIT_SUCCESS;
}

static int read_creation(struct ctl *ctl, struct creation *creation)
{
    static const struct option options[] = {
        { "spec", required_argument, NULL, 's' },
        { "spec-file", required_argument, NULL, 'f' },
        { "tensor", required_argument, NULL, 't' },
        { "policy", required_argument, NULL, 'p' },
        { "async", no_argument, NULL, 'a' },
        { "min-workers", required_argument, NULL, 'w' },
        { 0 }
    };
    int option, status = EXIT_SUCCESS, specifications = 0;
    uint64_t workers;
    const char *part;
    size_t size;
    optind = 0;
    while (status == EXIT_SUCCESS &&
           (option = getopt_long(ctl->argc, ctl->argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's':
            creation->specification = optarg;
            specifications++;
            break;
        case 'f':
            status = read_specification(creation, optarg);
            specifications++;
            break;
        case 't':
            status = add_tensor(creation, optarg);
            break;
        case 'a':
            creation->policy.mode = OPTCLIENT_ASYNC;
            break;
        case 'p':
            if (!ctl_read_policy(optarg, &creation->policy, &part, &size)) {
                return wrong("--policy is a mode (sync, async or bounded) and then "
                             "fields such as samples=1000, backup=1, staleness=4, "
                             "damping or loss=fail; '%.*s' is not one",
                             (int)size, part);
            }
            break;
        case 'w':
            if (!read_number(optarg, UINT32_MAX, &workers)) {
                return wrong("--min-workers is a number, not '%s'", optarg);
            }
            creation->policy.min_workers = (uint32_t)workers;
            break;
        default:
            return EXIT_WRONG;
        }
    }
    if (status == EXIT_SUCCESS &&
        (ctl->argc - optind != 1 || specifications != 1 || creation->count == 0)) {
        return wrong(
            "create needs a model, one --spec or --spec-file, and at least one "
            "--tensor");
    }
    return status;
}

static int run_create(struct ctl *ctl)
{
    struct creation creation = { 0 };
    struct optclient_model *model = NULL;
    int status = read_creation(ctl, &creation);
    if (status == EXIT_SUCCESS) {
        if (!connect_as(ctl, NULL) ||
            optclient_create(ctl->client, ctl->argv[optind], creation.specification,
                             &creation.policy, creation.tensors, creation.count, NULL,
                             &model) != OPTCLIENT_OK) {
            status = failed();
        }
        optclient_model_close(model);
    }
    creation_fini(&creation);
    return status;
}

/* ---------------------------------------------------------------- the command line */

static const struct command {
    const char *name;
    int least, most; /* arguments; most -1: it looks itself */
    int (*run)(struct ctl *ctl);
    const char *usage;
} commands[] = {
    { "list", 0, 0, run_list, "list" },
    { "show", 0, -1, run_show, "show MODEL [--yaml]" },
    { "create", 0, -1, run_create,
      "create MODEL {--spec EXPRESSION | --spec-file FILE} --tensor NAME:SHAPE ... "
      "[--policy POLICY] "
      "[--async] [--min-workers N]" },
    { "set", 0, -1, run_set, "set MODEL NAME=VALUE ... [--at-step N]" },
    { "delete", 1, 1, run_delete, "delete MODEL" },
    { "stats", 0, 0, run_stats, "stats" },
    { "rules", 0, -1, run_rules, "rules [NAME | --profile NAME]" },
    { "spec", 0, -1, run_spec, "spec {EXPRESSION | --file FILE}" },
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int help(void)
{
    puts("usage: optctl [--server HOST:PORT] [--json] COMMAND");
    for (size_t i = 0; i < COMMANDS; i++) {
        printf("  %s\n", commands[i].usage);
    }
    return printed(true);
}

static int run_command(struct ctl *ctl)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        const struct command *command = &commands[i];
        if (strcmp(command->name, ctl->argv[0]) != 0) {
            continue;
        }
        int given = ctl->argc - 1;
        if (command->most >= 0 && (given < command->least || given > command->most)) {
            return wrong("usage: optctl %s", command->usage);
        }
        int status = command->run(ctl);
        optclient_close(ctl->client);
        return status;
    }
    return wrong("there is no command '%s'", ctl->argv[0]);
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "server", required_argument, NULL, 's' },
                                             { "json", no_argument, NULL, 'j' },
                                             { "help", no_argument, NULL, 'h' },
                                             { "version", no_argument, NULL, 'v' },
                                             { 0 } };
    struct ctl ctl = { .server = "127.0.0.1:7070" };
    int option;
    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (option) {
        case 's':
            ctl.server = optarg;
            break;
        case 'j':
            ctl.json = true;
            break;
        case 'h':
            return help();
        case 'v':
            puts("optctl " OPTIMD_VERSION);
            return printed(true);
        default:
            return EXIT_WRONG;
        }
    }
    if (optind == argc) {
        return wrong("which command?");
    }
    ctl.argc = argc - optind;
    ctl.argv = argv + optind;
    return run_command(&ctl);
}
