/* Models in .safetensors files: what is exported is what the model has, what is
 * imported is what the file had, and what cannot be is refused and leaves nothing
 * behind.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/optclient.h"
#include "common/dtype.h"
#include "common/safetensors.h"
#include "tests/support/client_models.h"
#include "tests/support/files.h"
#include "tests/support/operator.h"

static struct files files;
static char path[128];

static void start(void)
{
    files_open(&files);
    snprintf(path, sizeof path, "%s/m.safetensors", files.path);
    operator_start();
}

static void stop(void)
{
    operator_stop();
    files_close(&files);
}

static struct optclient *connect_to(const char *worker)
{
    struct optclient_options options = test_options();
    options.worker = worker;
    return test_connect(operator_server.address, &options);
}

/* A model of two tensors and a scalar, whose weights have been updated twice. */
static struct optclient_model *train(struct optclient *client, const char *name,
                                     const char *specification)
{
    static const uint64_t matrix[] = { 3, 40000 };
    static const uint64_t vector[] = { 5 };
    static float values[3 * 40000], bias[5], scale[1] = { 0.5f };
    const struct optclient_tensor tensors[] = {
        { .name = "w.a", .shape = matrix, .rank = 2 },
        { .name = "b", .shape = vector, .rank = 1 },
        { .name = "s", .rank = 0 }
    };
    const float *const initial[] = { values, bias, scale };
    struct optclient_model *model;
    for (size_t i = 0; i < 3 * 40000; i++) {
        values[i] = (float)(i % 1000) / 64;
    }
    expect_ok(optclient_create(client, name, specification, NULL, tensors, 3, initial,
                               &model));
    struct optclient_values gradients[] = { { .tensor = 0, .values = values },
                                            { .tensor = 1, .values = bias },
                                            { .tensor = 2, .values = scale } };
    expect_ok(optclient_push(model, gradients, 3, NULL, NULL));
    expect_ok(optclient_push(model, gradients, 3, NULL, NULL));
    return model;
}

/* A tensor as the daemon has it; to be freed. */
static float *pulled(struct optclient_model *model, size_t tensor,
                     enum optclient_view view, const char *slot)
{
    size_t n = (size_t)optclient_tensor_elements(optclient_model_tensor(model, tensor));
    float *values = malloc(n * sizeof *values);
    struct optclient_values weights = { .tensor = tensor, .values = values };
    struct optclient_pull_options options = { .view = view, .slot = slot };
    cr_assert_not_null(values);
    expect_ok(optclient_pull(model, &weights, 1, &options, NULL));
    return values;
}

/* The entry of that name has the values, in its dtype. */
static void expect_entry(const struct opt_safetensors *file, const char *name,
                         enum opt_safetensors_type type, enum opt_dtype dtype,
                         const float *values)
{
    const struct opt_safetensors_entry *entry = opt_safetensors_find(file, name);
    cr_assert_not_null(entry, "%s", name);
    cr_assert_eq(entry->type, type, "%s", name);
    size_t bytes = (size_t)entry->count * opt_dtype_size(dtype);
    void *expected = malloc(bytes);
    cr_assert_not_null(expected);
    opt_dtype_narrow(dtype, values, expected, (size_t)entry->count);
    cr_assert_eq(memcmp(expected, entry->data, bytes), 0, "%s", name);
    free(expected);
}

static struct opt_safetensors *read_file(uint8_t **bytes)
{
    struct opt_safetensors *file;
    struct opt_error error;
    size_t size;
    *bytes = files_read(&files, "m.safetensors", &size);
    cr_assert_eq(opt_safetensors_read(*bytes, size, size, &file, &error), OPT_OK, "%s",
                 error.text);
    return file;
}

Test(files, has_weights_and_slots_of_one_step, .init = start, .fini = stop)
{
    struct optclient *client = connect_to("a");
    struct optclient_model *model =
        train(client, "m", "adam(lr=0.1) + lookahead(k=2, alpha=0.5)");
    struct optclient_export_options options = { .view = OPTCLIENT_EVAL, .slots = 1 };
    struct optclient_result result;
    expect_ok(optclient_export(client, "m", path, &options, &result));
    cr_expect_eq(result.step, 2);
    uint8_t *bytes;
    struct opt_safetensors *file = read_file(&bytes);
    cr_expect_eq(opt_safetensors_count(file), 3 * 4);
    static const char *const names[] = { "w.a", "b", "s" };
    for (size_t i = 0; i < 3; i++) {
        float *weights = pulled(model, i, OPTCLIENT_EVAL, NULL);
        float *slot = pulled(model, i, OPTCLIENT_SLOT, "exp_avg_sq");
        char name[64];
        snprintf(name, sizeof name, "%s.exp_avg_sq", names[i]);
        expect_entry(file, names[i], OPT_SAFETENSORS_F32, OPT_FP32, weights);
        expect_entry(file, name, OPT_SAFETENSORS_F32, OPT_FP32, slot);
        free(weights);
        free(slot);
    }
    cr_expect_eq(atoi(opt_safetensors_metadata(file, "step")), 2);
    cr_expect_str_eq(opt_safetensors_metadata(file, "view"), "eval");
    cr_expect_str_eq(opt_safetensors_metadata(file, "specification"),
                     optclient_model_specification(model));
    opt_safetensors_free(file);
    free(bytes);
    cr_expect_str_eq(files_names(&files, ""), "m.safetensors");
    optclient_close(client);
}

Test(files, is_of_any_dtype_and_comes_back, .init = start, .fini = stop)
{
    static const struct {
        enum optclient_dtype dtype;
        enum opt_safetensors_type type;
    } kinds[] = { { OPTCLIENT_FP32, OPT_SAFETENSORS_F32 },
                  { OPTCLIENT_BF16, OPT_SAFETENSORS_BF16 },
                  { OPTCLIENT_FP16, OPT_SAFETENSORS_F16 } };
    struct optclient *client = connect_to("a");
    struct optclient_model *model = train(client, "m", "momentum(lr=0.01)");
    for (size_t k = 0; k < 3; k++) {
        struct optclient_export_options options = { .dtype = kinds[k].dtype,
                                                    .slots = k == 2 };
        expect_ok(optclient_export(client, "m", path, &options, NULL));
        uint8_t *bytes;
        struct opt_safetensors *file = read_file(&bytes);
        float *weights = pulled(model, 0, OPTCLIENT_TRAIN, NULL);
        expect_entry(file, "w.a", kinds[k].type, (enum opt_dtype)kinds[k].dtype,
                     weights);
        struct optclient_model *again;
        char name[8];
        snprintf(name, sizeof name, "m%zu", k);
        expect_ok(
            optclient_import(client, name, "sgd(lr=1)", NULL, path, NULL, &again));
        cr_expect_eq(optclient_model_tensors(again), 3); /* and no slots */
        size_t at = optclient_model_find(again, "w.a");
        const struct optclient_tensor *tensor = optclient_model_tensor(again, at);
        cr_expect(tensor->rank == 2 && tensor->shape[1] == 40000);
        float *came = pulled(again, at, OPTCLIENT_TRAIN, NULL);
        expect_entry(file, "w.a", kinds[k].type, (enum opt_dtype)kinds[k].dtype, came);
        free(came);
        free(weights);
        opt_safetensors_free(file);
        free(bytes);
    }
    optclient_close(client);
}

Test(files, counts_what_a_dtype_cannot_hold, .init = start, .fini = stop)
{
    static const uint64_t shape[] = { 3 };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    static const float values[] = { 1, 1e6f, -1e7f };
    const float *const initial[] = { values };
    struct optclient *client = connect_to("a");
    struct optclient_model *model;
    expect_ok(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, initial, &model));
    struct optclient_export_options options = { .dtype = OPTCLIENT_FP16 };
    struct optclient_result result;
    expect_ok(optclient_export(client, "m", path, &options, &result));
    cr_expect_eq(result.held, 2);
    optclient_close(client);
}

Test(files, imports_sparse_tensors_and_trains_on, .init = start, .fini = stop)
{
    static const uint64_t shape[] = { 100, 4 };
    const struct optclient_tensor tensor = {
        .name = "table", .shape = shape, .rank = 2, .sparse = 1
    };
    struct optclient *client = connect_to("a");
    struct optclient_model *model, *again;
    expect_ok(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model));
    expect_ok(optclient_export(client, "m", path, NULL, NULL));
    const char *const sparse[] = { "table", "none" };
    struct optclient_import_options options = { .sparse = sparse, .sparse_count = 2 };
    expect_status(
        optclient_import(client, "n", "sgd(lr=1)", NULL, path, &options, &again),
        OPTCLIENT_INVALID_ARGUMENT);
    cr_expect(strstr(optclient_error(), "no tensor \"none\"") != NULL, "%s",
              optclient_error());
    options.sparse_count = 1;
    expect_ok(optclient_import(client, "n", "sgd(lr=1)", NULL, path, &options, &again));
    const uint32_t rows[] = { 7 };
    float gradient[] = { 1, 2, 3, 4 };
    struct optclient_values push = {
        .tensor = 0, .values = gradient, .rows = rows, .row_count = 1
    };
    expect_ok(optclient_push(again, &push, 1, NULL, NULL));
    float *values = pulled(again, 0, OPTCLIENT_TRAIN, NULL);
    cr_expect(values[7 * 4 + 1] == -2 && values[0] == 0);
    free(values);
    optclient_close(client);
}

Test(files, never_overwrites_a_model, .init = start, .fini = stop)
{
    struct optclient *client = connect_to("a"), *other = connect_to("b");
    struct optclient_model *model = train(client, "m", "sgd(lr=0.01)"), *again;
    expect_ok(optclient_export(client, "m", path, NULL, NULL));
    expect_status(
        optclient_import(other, "m", "sgd(lr=0.01)", NULL, path, NULL, &again),
        OPTCLIENT_ALREADY_EXISTS);
    cr_expect(strstr(optclient_error(), "\"m\"") != NULL, "%s", optclient_error());
    optclient_model_close(model);
    optclient_close(client);
    optclient_close(other);
}

Test(files, refuses_what_is_no_such_file, .init = start, .fini = stop)
{
    static const struct {
        const char *content, *words;
        size_t size;
    } wrong[] = {
        { "1234", "too few", 4 },
        { "\377\377\377\377\377\377\377\177{}", "header would take", 10 },
        { "\10\0\0\0\0\0\0\0nonsense", "not JSON", 16 },
        { "\10\0\0\0\0\0\0\0{}      x", "the file has 1", 17 },
    };
    struct optclient *client = connect_to("a");
    struct optclient_model *model;
    expect_status(optclient_import(client, "m", "sgd(lr=1)", NULL, path, NULL, &model),
                  OPTCLIENT_NOT_FOUND);
    expect_status(
        optclient_import(client, "m", "sgd(lr=1)", NULL, files.path, NULL, &model),
        OPTCLIENT_INVALID_ARGUMENT);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        files_write(&files, "m.safetensors", wrong[i].content, wrong[i].size);
        expect_status(
            optclient_import(client, "m", "sgd(lr=1)", NULL, path, NULL, &model),
            OPTCLIENT_DATA_LOSS);
        cr_expect(strstr(optclient_error(), wrong[i].words) != NULL &&
                      strstr(optclient_error(), path) != NULL,
                  "%s", optclient_error());
    }
    struct opt_safetensors_entry entry = { .name = "n", .type = OPT_SAFETENSORS_I64 };
    void *header;
    size_t size;
    struct opt_error error;
    cr_assert_eq(opt_safetensors_header(&entry, 1, NULL, 0, &header, &size, &error),
                 OPT_OK);
    uint8_t *bytes = calloc(1, size + 8);
    cr_assert_not_null(bytes);
    memcpy(bytes, header, size);
    files_write(&files, "m.safetensors", bytes, size + 8);
    expect_status(optclient_import(client, "m", "sgd(lr=1)", NULL, path, NULL, &model),
                  OPTCLIENT_INVALID_ARGUMENT);
    cr_expect(strstr(optclient_error(), "\"n\"") != NULL, "%s", optclient_error());
    free(bytes);
    free(header);
    optclient_close(client);
}

/* As other writers do: a header of any length, entries in any order, keys of their own,
 * spaces where JSON allows them, values that are not aligned. */
Test(files, reads_what_others_write, .init = start, .fini = stop)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\n"
        " \"b\": {\"data_offsets\": [6, 14], \"shape\": [2], \"dtype\": \"F32\"},"
        " \"a.half\": {\"dtype\":\"F16\",\"shape\":[3,1],\"data_offsets\":[0,6]}}";
    static const uint16_t halves[] = { 0x3C00, 0xC000, 0x3800 }; /* 1, -2, 0.5 */
    static const float floats[] = { 1.25f, -3 };
    uint8_t bytes[512];
    uint64_t length = sizeof header - 1;
    cr_assert_neq(length % 8, 0);
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(length >> (8 * i));
    }
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, halves, sizeof halves);
    memcpy(bytes + 8 + length + sizeof halves, floats, sizeof floats);
    files_write(&files, "m.safetensors", bytes,
                8 + length + sizeof halves + sizeof floats);
    struct optclient *client = connect_to("a");
    struct optclient_model *model;
    expect_ok(optclient_import(client, "m", "sgd(lr=1)", NULL, path, NULL, &model));
    float *half =
        pulled(model, optclient_model_find(model, "a.half"), OPTCLIENT_TRAIN, NULL);
    float *b = pulled(model, optclient_model_find(model, "b"), OPTCLIENT_TRAIN, NULL);
    cr_expect(half[0] == 1 && half[1] == -2 && half[2] == 0.5f);
    cr_expect(b[0] == 1.25f && b[1] == -3);
    free(half);
    free(b);
    optclient_close(client);
}

Test(files, leaves_the_old_file_if_there_is_no_space, .init = start, .fini = stop)
{
    struct optclient *client = connect_to("a");
    (void)train(client, "m", "sgd(lr=0.01)");
    files_write(&files, "m.safetensors", "old", 3);
    const struct rlimit small = { .rlim_cur = 100000, .rlim_max = RLIM_INFINITY };
    struct rlimit before;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_status(optclient_export(client, "m", path, NULL, NULL),
                  OPTCLIENT_RESOURCE_EXHAUSTED);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    size_t size;
    uint8_t *bytes = files_read(&files, "m.safetensors", &size);
    cr_expect_eq(size, 3);
    free(bytes);
    cr_expect_str_eq(files_names(&files, ""), "m.safetensors");
    expect_status(optclient_export(client, "none", path, NULL, NULL),
                  OPTCLIENT_NOT_FOUND);
    expect_status(optclient_export(client, "m", "/no/such/folder/f", NULL, NULL),
                  OPTCLIENT_NOT_FOUND);
    optclient_close(client);
}

Test(files, optctl_does_both, .init = start, .fini = stop)
{
    struct optclient *client = connect_to("a");
    struct optclient_model *model = train(client, "m", "sgd(lr=0.01)");
    cr_assert_eq(RUN("export", "m", path, "--dtype", "bf16", "--view", "eval"), 0, "%s",
                 operator_out);
    cr_expect(strstr(operator_out, "step 2") != NULL, "%s", operator_out);
    cr_assert_eq(RUN("--json", "import", "n", path, "--spec", "adam(lr=1e-3)",
                     "--policy", "async"),
                 0, "%s", operator_out);
    json_t *answer = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(answer, "tensors")), 3);
    cr_expect_eq(json_integer_value(json_object_get(answer, "parameters")), 120006);
    json_decref(answer);
    cr_assert_eq(RUN("import", "n", path, "--spec", "adam(lr=1e-3)"), 1);
    cr_expect(strstr(operator_error, "there already") != NULL ||
                  strstr(operator_error, "another definition") != NULL,
              "%s", operator_error);
    cr_assert_eq(RUN("export", "m", path, "--dtype", "int8"), 64);
    cr_assert_eq(RUN("export", "m", path, "--view", "slot"), 64);
    cr_assert_eq(RUN("import", "o", path), 64);
    cr_assert_eq(RUN("--json", "export", "m", path, "--slots"), 0, "%s", operator_out);
    answer = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(answer, "step")), 2);
    json_decref(answer);
    optclient_model_close(model);
    optclient_close(client);
}
