/* create — a model from the command line; see commands.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/quantity.h"
#include "tools/optctl/commands.h"
#include "tools/optctl/creation.h"
#include "tools/optctl/policy.h"
#include "tools/optctl/spec.h"

enum { RANK_MAX = 8 };

struct tensors {
    struct optclient_tensor *list; /* with names and shapes of their own */
    size_t count;
};

static void tensors_fini(struct tensors *tensors)
{
    for (size_t i = 0; i < tensors->count; i++) {
        free((void *)(uintptr_t)tensors->list[i].name);
        free((void *)(uintptr_t)tensors->list[i].shape);
    }
    free(tensors->list);
}

/* "128x784"; nothing: a scalar. */
static int read_shape(const struct ctl *ctl, const char *tensor, const char *text,
                      uint64_t shape[RANK_MAX], size_t *rank)
{
    struct opt_error error;
    for (*rank = 0; *text != '\0';) {
        char digits[24] = "";
        size_t size = strcspn(text, "x");
        if (*rank == RANK_MAX) {
            return ctl_wrong(ctl, "the shape of '%s' has more than %d dimensions",
                             tensor, RANK_MAX);
        }
        bool whole = size < sizeof(digits);
        memcpy(digits, text, whole ? size : 0);
        bool ends = text[size] == '\0';
        if (!whole || (!ends && text[size + 1] == '\0') ||
            opt_quantity_count(digits, &shape[*rank], &error) != OPT_OK ||
            shape[*rank] == 0) {
            return ctl_wrong(ctl, "the shape of '%s' is not whole numbers joined by x",
                             tensor);
        }
        (*rank)++;
        text += ends ? size : size + 1;
    }
    return EXIT_SUCCESS;
}

/* "fc1.weight:128x784" */
static int add_tensor(const struct ctl *ctl, struct tensors *tensors, const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t shape[RANK_MAX] = { 0 };
    size_t rank;
    if (colon == NULL) {
        return ctl_wrong(
            ctl, "a tensor is NAME:SHAPE, such as fc1.weight:128x784, not '%s'", text);
    }
    int status = read_shape(ctl, text, colon + 1, shape, &rank);
    if (status != EXIT_SUCCESS) {
        return status;
    }
    struct optclient_tensor *more =
        realloc(tensors->list, (tensors->count + 1) * sizeof(*more));
    if (more != NULL) {
        tensors->list = more;
        struct optclient_tensor *tensor = &more[tensors->count++];
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

static int read_specification(struct ctl *ctl, struct creation *creation)
{
    const char *file = ctl_value(ctl, "spec-file");
    struct opt_spec spec;
    struct opt_error error;
    creation->specification = ctl_value(ctl, "spec");
    if ((creation->specification == NULL) == (file == NULL)) {
        return ctl_wrong(ctl, "%s needs one of --spec and --spec-file",
                         ctl->command->name);
    }
    if (file == NULL) {
        return EXIT_SUCCESS;
    }
    if (spec_read(file, &spec, &error) != OPT_OK) {
        return ctl_refused(ctl, &error);
    }
    opt_spec_print(&spec, creation->from_file, sizeof(creation->from_file));
    opt_spec_fini(&spec);
    creation->specification = creation->from_file;
    return EXIT_SUCCESS;
}

static int read_policy(struct ctl *ctl, struct optclient_policy *policy)
{
    const char *text = ctl_value(ctl, "policy"),
               *workers = ctl_value(ctl, "min-workers"),
               *durability = ctl_value(ctl, "durability"),
               *steps = ctl_value(ctl, "checkpoint-steps"), *part;
    struct opt_error error;
    uint64_t count;
    size_t size;
    if (text != NULL && !policy_read(text, policy, &part, &size)) {
        return ctl_wrong(ctl,
                         "--policy is a mode (sync, async or bounded) and then fields "
                         "such as samples=1000, backup=1, staleness=4, damping or "
                         "loss=fail; '%.*s' is not one",
                         (int)size, part);
    }
    if (ctl_value(ctl, "async") != NULL) {
        policy->mode = OPTCLIENT_ASYNC;
    }
    if (workers != NULL) {
        if (opt_quantity_count(workers, &count, &error) != OPT_OK ||
            count > UINT32_MAX) {
            return ctl_wrong(ctl, "--min-workers is a number, not '%s'", workers);
        }
        policy->min_workers = (uint32_t)count;
    }
    if (durability != NULL && !policy_durability(durability, policy)) {
        return ctl_wrong(ctl,
                         "--durability is always, interval, checkpoint or default, not "
                         "'%s'",
                         durability);
    }
    if (steps != NULL &&
        opt_quantity_count(steps, &policy->checkpoint_steps, &error) != OPT_OK) {
        return ctl_wrong(ctl, "--checkpoint-steps is a number, not '%s'", steps);
    }
    return EXIT_SUCCESS;
}

int creation_read(struct ctl *ctl, struct creation *creation)
{
    int status = read_specification(ctl, creation);
    return status == EXIT_SUCCESS ? read_policy(ctl, &creation->policy) : status;
}

static int read_tensors(struct ctl *ctl, struct tensors *tensors)
{
    const char *text;
    for (size_t cursor = 0; (text = ctl_each(ctl, "tensor", &cursor)) != NULL;) {
        int status = add_tensor(ctl, tensors, text);
        if (status != EXIT_SUCCESS) {
            return status;
        }
    }
    return tensors->count > 0 ? EXIT_SUCCESS
                              : ctl_wrong(ctl, "create needs at least one --tensor");
}

static int ask(struct ctl *ctl, const struct creation *creation,
               const struct tensors *tensors)
{
    struct optclient_model *model = NULL;
    int result = ctl_connect(ctl, NULL);
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status = optclient_create(
        ctl->client, ctl->arguments[0], creation->specification, &creation->policy,
        tensors->list, tensors->count, NULL, &model);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    result = ctl->json
                 ? ctl_answer(ctl, json_pack("{s:s, s:s}", "name", ctl->arguments[0],
                                             "specification",
                                             optclient_model_specification(model)))
                 : EXIT_SUCCESS;
    optclient_model_close(model);
    return result;
}

int run_create(struct ctl *ctl)
{
    static struct creation creation;
    struct tensors tensors = { 0 };
    int status = creation_read(ctl, &creation);
    if (status == EXIT_SUCCESS) {
        status = read_tensors(ctl, &tensors);
    }
    if (status == EXIT_SUCCESS) {
        status = ask(ctl, &creation, &tensors);
    }
    tensors_fini(&tensors);
    return status;
}
