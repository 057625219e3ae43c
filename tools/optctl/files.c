/* files — models to files and back; see commands.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/optctl/commands.h"
#include "tools/optctl/creation.h"

/* The place of a word in a list that ends with NULL, or -1. */
static int place_of(const char *word, const char *const *list)
{
    for (int i = 0; list[i] != NULL; i++) {
        if (strcmp(word, list[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static int read_export(struct ctl *ctl, struct optclient_export_options *options)
{
    static const char *const views[] = { "train", "eval", NULL };
    static const char *const dtypes[] = { "fp32", "bf16", "fp16", NULL };
    const char *view = ctl_value(ctl, "view"), *dtype = ctl_value(ctl, "dtype");
    int of_view = view != NULL ? place_of(view, views) : 0;
    int of_dtype = dtype != NULL ? place_of(dtype, dtypes) : 0;
    if (of_view < 0) {
        return ctl_wrong(ctl, "--view is train or eval, not '%s'", view);
    }
    if (of_dtype < 0) {
        return ctl_wrong(ctl, "--dtype is fp32, bf16 or fp16, not '%s'", dtype);
    }
    *options = (struct optclient_export_options){
        .view = (enum optclient_view)of_view,
        .dtype = (enum optclient_dtype)of_dtype,
        .slots = ctl_value(ctl, "slots") != NULL,
        .timeout_ms = ctl->timeout_ms,
    };
    return EXIT_SUCCESS;
}

int run_export(struct ctl *ctl)
{
    const char *model = ctl->arguments[0], *path = ctl->arguments[1];
    struct optclient_export_options options;
    struct optclient_result result;
    int exit_status = read_export(ctl, &options);
    if (exit_status == EXIT_SUCCESS) {
        exit_status = ctl_connect(ctl, "");
    }
    if (exit_status != EXIT_SUCCESS) {
        return exit_status;
    }
    enum optclient_status status =
        optclient_export(ctl->client, model, path, &options, &result);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (ctl->json) {
        return ctl_answer(ctl, json_pack("{s:s, s:s, s:o, s:o}", "name", model, "file",
                                         path, "step", ctl_count(result.step), "held",
                                         ctl_count(result.held)));
    }
    printf("%s: step %" PRIu64 "\n", path, result.step);
    if (result.held > 0) {
        printf("%" PRIu64 " values are beyond the dtype, and are its largest\n",
               result.held);
    }
    return ctl_done(ctl);
}

static int import_from(struct ctl *ctl, const struct creation *creation,
                       const struct optclient_import_options *options)
{
    struct optclient_model *model;
    int exit_status = ctl_connect(ctl, NULL);
    if (exit_status != EXIT_SUCCESS) {
        return exit_status;
    }
    enum optclient_status status =
        optclient_import(ctl->client, ctl->arguments[0], creation->specification,
                         &creation->policy, ctl->arguments[1], options, &model);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    uint64_t parameters = 0;
    size_t tensors = optclient_model_tensors(model);
    for (size_t i = 0; i < tensors; i++) {
        parameters += optclient_tensor_elements(optclient_model_tensor(model, i));
    }
    if (ctl->json) {
        exit_status = ctl_answer(ctl, json_pack("{s:s, s:s, s:o, s:o}", "name",
                                                ctl->arguments[0], "specification",
                                                optclient_model_specification(model),
                                                "tensors", ctl_count(tensors),
                                                "parameters", ctl_count(parameters)));
    } else {
        printf("%s: %zu tensors, %" PRIu64 " parameters\n", ctl->arguments[0], tensors,
               parameters);
        exit_status = ctl_done(ctl);
    }
    optclient_model_close(model);
    return exit_status;
}

int run_import(struct ctl *ctl)
{
    static struct creation creation;
    int exit_status = creation_read(ctl, &creation);
    if (exit_status != EXIT_SUCCESS) {
        return exit_status;
    }
    const char **sparse = malloc((ctl->given_count + 1) * sizeof *sparse);
    if (sparse == NULL) {
        fputs("optctl: no memory\n", stderr);
        return EXIT_FAILED;
    }
    struct optclient_import_options options = { .sparse = sparse };
    const char *name;
    for (size_t cursor = 0; (name = ctl_each(ctl, "sparse", &cursor)) != NULL;) {
        sparse[options.sparse_count++] = name;
    }
    exit_status = import_from(ctl, &creation, &options);
    free(sparse);
    return exit_status;
}
