/* golden_cases — see golden_cases.h. */
#include "tests/support/golden_cases.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/safetensors.h"

/* A whole file in memory. */
struct blob {
    void *data;
    size_t size;
};

struct golden_files {
    json_t *json;
    struct blob expected_blob, problem_blob;
    struct opt_safetensors *expected, *problem;
    float initial[GOLDEN_TENSORS]; /* of function cases */
    uint32_t *rows;                /* of sparse cases */
    void (*gradient)(const double *x, double *g);
};

static enum opt_status read_blob(const char *folder, const char *name,
                                 const char *suffix, struct blob *out,
                                 struct opt_error *error)
{
    char path[4096];
    long size;

    snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return opt_fail(error, OPT_NOT_FOUND, "%s cannot be opened", path);
    }
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    out->size = size > 0 ? (size_t)size : 0;
    out->data = malloc(out->size + 1);
    bool ok = out->data != NULL && fread(out->data, 1, out->size, file) == out->size;
    fclose(file);
    return ok ? OPT_OK : opt_fail(error, OPT_DATA_LOSS, "%s cannot be read", path);
}

static enum opt_status read_tensors(const char *folder, const char *name,
                                    struct blob *blob, struct opt_safetensors **out,
                                    struct opt_error *error)
{
    enum opt_status status = read_blob(folder, name, ".safetensors", blob, error);

    return status == OPT_OK ? opt_safetensors_read(blob->data, blob->size,
                                                   OPT_SAFETENSORS_HEADER, out, error)
                            : status;
}

/* ------------------------------------------------------------------ the folder */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum opt_status golden_list(const char *folder, char ***names, size_t *count,
                            struct opt_error *error)
{
    enum { MOST = 4096 };
    DIR *directory = opendir(folder);
    char **list = calloc(MOST, sizeof *list);
    struct dirent *entry;
    size_t n = 0;

    if (directory == NULL || list == NULL) {
        free(list);
        if (directory != NULL) {
            closedir(directory);
        }
        return opt_fail(error, OPT_NOT_FOUND, "the folder %s cannot be opened", folder);
    }
    while (n < MOST && (entry = readdir(directory)) != NULL) {
        size_t size = strlen(entry->d_name);

        if (size > 5 && size < GOLDEN_NAME &&
            strcmp(entry->d_name + size - 5, ".json") == 0 &&
            strcmp(entry->d_name, "index.json") != 0) {
            list[n] = strdup(entry->d_name);
            if (list[n] != NULL) {
                list[n][size - 5] = '\0';
                n++;
            }
        }
    }
    closedir(directory);
    qsort(list, n, sizeof *list, by_name);
    *names = list;
    *count = n;
    return OPT_OK;
}

void golden_list_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
    }
    free(names);
}

/* ------------------------------------------------------------------ functions */

/* sum of a_i (x_i - c_i)^2 / 2 */
static void quadratic(const double *x, double *g)
{
    static const double a[] = { 1, 10, 0.1, 3, 0.01 }, c[] = { 1, -2, 3, 0.5, -1 };

    for (int i = 0; i < 5; i++) {
        g[i] = a[i] * (x[i] - c[i]);
    }
}

static void beale(const double *x, double *g)
{
    double y = x[1], p = 1.5 - x[0] + x[0] * y, q = 2.25 - x[0] + x[0] * y * y,
           r = 2.625 - x[0] + x[0] * y * y * y;

    g[0] = 2 * p * (y - 1) + 2 * q * (y * y - 1) + 2 * r * (y * y * y - 1);
    g[1] = 2 * p * x[0] + 4 * q * x[0] * y + 6 * r * x[0] * y * y;
}

static void saddle(const double *x, double *g)
{
    g[0] = 2 * x[0];
    g[1] = 4 * x[1] * x[1] * x[1] - 4 * x[1];
}

static const struct {
    const char *name;
    void (*gradient)(const double *x, double *g);
    size_t n;
} functions[] = {
    { "quadratic", quadratic, 5 },
    { "beale", beale, 2 },
    { "saddle", saddle, 2 },
};

void golden_gradient(const struct golden_case *golden, const float *x, float *gradient)
{
    double at[GOLDEN_TENSORS] = { 0 }, g[GOLDEN_TENSORS] = { 0 };
    size_t n = golden->tensors[0].n;

    for (size_t i = 0; i < n; i++) {
        at[i] = (double)x[i];
    }
    golden->files->gradient(at, g);
    for (size_t i = 0; i < n; i++) {
        gradient[i] = (float)g[i];
    }
}

/* ------------------------------------------------------------------ a case */

static void unsupported(struct golden_case *golden, const char *why)
{
    snprintf(golden->unsupported, sizeof golden->unsupported, "%s", why);
}

static struct opt_wire_option option_of(const char *name, const json_t *value)
{
    struct opt_wire_option option = { .name = name };

    if (json_is_number(value)) {
        option.kind = OPT_VALUE_NUMBER;
        option.number = json_number_value(value);
    } else if (json_is_boolean(value)) {
        option.kind = OPT_VALUE_FLAG;
        option.flag = json_is_true(value);
    } else {
        option.kind = OPT_VALUE_WORD;
        option.word = json_is_string(value) ? json_string_value(value) : "";
    }
    return option;
}

static enum opt_status set_groups(struct opt_spec *spec, json_t *groups,
                                  struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    const char *pattern, *name;
    json_t *overrides, *value;

    json_object_foreach(groups, pattern, overrides)
    {
        struct opt_wire_option options[4];
        struct opt_wire_group group = { .pattern = pattern, .options = options };

        json_object_foreach(overrides, name, value)
        {
            if (group.option_count == sizeof options / sizeof options[0]) {
                return opt_fail(error, OPT_INVALID_ARGUMENT,
                                "%s has more options than a tensor can have", pattern);
            }
            options[group.option_count++] = option_of(name, value);
        }
        if (status == OPT_OK) {
            status = opt_spec_group(spec, &group, error);
        }
    }
    return status;
}

static enum opt_status set_option(struct opt_spec *spec,
                                  const struct opt_wire_option *value,
                                  struct opt_error *error)
{
    size_t size = strlen(value->name);
    const struct opt_option *option = opt_option_find(value->name, size);
    return option != NULL ? opt_option_set(spec, option, value, error)
                          : opt_option_unknown(value->name, size, spec->rule, error);
}

/* The configuration spells out every option, so the rule's name and the setters are
 * all it takes. What they refuse is not supported. */
static void read_spec(struct golden_case *golden, json_t *config)
{
    struct opt_error error;
    const char *rule = json_string_value(json_object_get(config, "rule")), *name;
    enum opt_status status =
        opt_spec_init(&golden->spec, rule != NULL ? rule : "", &error);
    json_t *value;

    json_object_foreach(config, name, value)
    {
        if (status != OPT_OK || strcmp(name, "rule") == 0) {
            continue;
        }
        if (strcmp(name, "tensor_options") == 0) {
            status = set_groups(&golden->spec, value, &error);
        } else {
            struct opt_wire_option option = option_of(name, value);
            status = set_option(&golden->spec, &option, &error);
        }
    }
    if (status == OPT_OK) {
        status = opt_spec_check(&golden->spec, &error);
    }
    if (status != OPT_OK) {
        unsupported(golden, error.text);
    }
}

/* The tensor called PREFIX/NAME, whose leading dimension counts steps or workers. */
static enum opt_status add_tensor(struct golden_case *golden,
                                  const struct opt_safetensors_entry *entry,
                                  size_t prefix, size_t leading, const float *initial,
                                  const float *gradients, struct opt_error *error)
{
    struct golden_tensor *tensor = &golden->tensors[golden->tensor_count];

    if (golden->tensor_count == GOLDEN_TENSORS || entry->type != OPT_SAFETENSORS_F32 ||
        entry->rank < leading || gradients == NULL) {
        return opt_fail(error, OPT_DATA_LOSS, "%s: cannot use tensor %s", golden->name,
                        entry->name);
    }
    tensor->name = entry->name + prefix;
    tensor->rank = entry->rank - leading;
    tensor->n = 1;
    for (size_t i = 0; i < tensor->rank; i++) {
        tensor->shape[i] = entry->shape[i + leading];
        tensor->n *= (size_t)tensor->shape[i];
    }
    tensor->initial = initial;
    tensor->gradients = gradients;
    golden->tensor_count++;
    return OPT_OK;
}

static enum opt_status read_stored(struct golden_case *golden, const char *folder,
                                   struct opt_error *error)
{
    struct golden_files *files = golden->files;
    char name[GOLDEN_KEY];
    const char *problem = json_string_value(json_object_get(files->json, "problem"));
    enum opt_status status;

    snprintf(name, sizeof name, "problem_%s", problem != NULL ? problem : "");
    status = read_tensors(folder, name, &files->problem_blob, &files->problem, error);
    for (size_t i = 0; status == OPT_OK && i < opt_safetensors_count(files->problem);
         i++) {
        const struct opt_safetensors_entry *initial =
            opt_safetensors_entry(files->problem, i);

        if (strncmp(initial->name, "init/", strlen("init/")) != 0) {
            continue;
        }
        snprintf(name, sizeof name, "grad/%s", initial->name + strlen("init/"));
        const struct opt_safetensors_entry *gradient =
            opt_safetensors_find(files->problem, name);
        bool fits = gradient != NULL && gradient->type == OPT_SAFETENSORS_F32 &&
                    gradient->count >= initial->count * golden->steps;
        status = add_tensor(golden, initial, strlen("init/"), 0, initial->data,
                            fits ? gradient->data : NULL, error);
    }
    return status;
}

/* The rows of all updates, which the file has in 64 bits. */
static bool read_rows(struct golden_case *golden,
                      const struct opt_safetensors_entry *from)
{
    struct golden_files *files = golden->files;
    const int64_t *rows = from->data;
    struct golden_tensor *tensor = &golden->tensors[0];

    files->rows = calloc((size_t)from->count + 1, sizeof *files->rows);
    for (uint64_t i = 0; files->rows != NULL && i < from->count; i++) {
        if (rows[i] < 0 || (uint64_t)rows[i] >= tensor->shape[0]) {
            return false;
        }
        files->rows[i] = (uint32_t)rows[i];
    }
    tensor->rows = files->rows;
    return files->rows != NULL;
}

static bool offsets_are_in_order(const int64_t *offsets, size_t count, uint64_t rows)
{
    bool well = offsets[0] >= 0 && (uint64_t)offsets[count - 1] <= rows;

    for (size_t i = 1; well && i < count; i++) {
        well = offsets[i] >= offsets[i - 1];
    }
    return well;
}

/* The table's start, whatever it is called; NULL if there is not exactly one. */
static const struct opt_safetensors_entry *
only_initial(const struct opt_safetensors *problem)
{
    const struct opt_safetensors_entry *found = NULL;

    for (size_t i = 0; i < opt_safetensors_count(problem); i++) {
        const struct opt_safetensors_entry *entry = opt_safetensors_entry(problem, i);
        if (strncmp(entry->name, "init/", strlen("init/")) == 0) {
            if (found != NULL) {
                return NULL;
            }
            found = entry;
        }
    }
    return found;
}

static enum opt_status read_sparse(struct golden_case *golden, const char *folder,
                                   struct opt_error *error)
{
    struct golden_files *files = golden->files;
    char name[GOLDEN_KEY];
    const char *problem = json_string_value(json_object_get(files->json, "problem"));

    snprintf(name, sizeof name, "problem_%s", problem != NULL ? problem : "");
    enum opt_status status =
        read_tensors(folder, name, &files->problem_blob, &files->problem, error);
    if (status != OPT_OK) {
        return status;
    }
    const struct opt_safetensors_entry *offsets =
        opt_safetensors_find(files->problem, "offsets");
    const struct opt_safetensors_entry *rows =
        opt_safetensors_find(files->problem, "rows");
    const struct opt_safetensors_entry *values =
        opt_safetensors_find(files->problem, "values");
    const struct opt_safetensors_entry *initial = only_initial(files->problem);
    if (offsets == NULL || rows == NULL || values == NULL || initial == NULL ||
        offsets->type != OPT_SAFETENSORS_I64 || rows->type != OPT_SAFETENSORS_I64 ||
        values->type != OPT_SAFETENSORS_F32 || initial->rank == 0 ||
        offsets->count < golden->steps + 1 ||
        !offsets_are_in_order(offsets->data, golden->steps + 1, rows->count) ||
        values->count * initial->shape[0] != rows->count * initial->count) {
        return opt_fail(error, OPT_DATA_LOSS, "%s: not a sparse problem", golden->name);
    }
    status = add_tensor(golden, initial, strlen("init/"), 0, initial->data,
                        values->data, error);
    golden->tensors[0].row_offsets = offsets->data;
    if (status == OPT_OK && !read_rows(golden, rows)) {
        status = opt_fail(error, OPT_DATA_LOSS, "%s: unusable rows", golden->name);
    }
    return status;
}

static enum opt_status read_function(struct golden_case *golden,
                                     struct opt_error *error)
{
    struct golden_files *files = golden->files;
    const char *problem = json_string_value(json_object_get(files->json, "problem"));
    const json_t *start = json_object_get(files->json, "init");

    for (size_t i = 0; problem != NULL && i < sizeof functions / sizeof functions[0];
         i++) {
        if (strcmp(functions[i].name, problem) != 0 ||
            json_array_size(start) != functions[i].n) {
            continue;
        }
        for (size_t j = 0; j < functions[i].n; j++) {
            files->initial[j] = (float)json_number_value(json_array_get(start, j));
        }
        files->gradient = functions[i].gradient;
        golden->tensor_count = 1;
        golden->tensors[0] = (struct golden_tensor){
            .name = "x",
            .rank = 1,
            .shape = { functions[i].n },
            .n = functions[i].n,
            .initial = files->initial,
        };
        return OPT_OK;
    }
    return opt_fail(error, OPT_DATA_LOSS, "%s: unknown function", golden->name);
}

static enum opt_status read_aggregation(struct golden_case *golden,
                                        struct opt_error *error)
{
    struct golden_files *files = golden->files;
    const struct opt_safetensors_entry *counts =
        opt_safetensors_find(files->expected, "counts");
    enum opt_status status = opt_spec_init(&golden->spec, "sgd", error);

    golden->spec.options.lr = 1.0;
    golden->steps = 1;
    golden->atol_params = json_number_value(json_object_get(files->json, "atol"));
    if (counts == NULL || counts->type != OPT_SAFETENSORS_I64 || counts->rank != 1) {
        return opt_fail(error, OPT_DATA_LOSS, "%s: no counts", golden->name);
    }
    golden->samples = counts->data;
    golden->workers = (size_t)counts->count;
    for (size_t i = 0; status == OPT_OK && i < opt_safetensors_count(files->expected);
         i++) {
        const struct opt_safetensors_entry *entry =
            opt_safetensors_entry(files->expected, i);

        if (strncmp(entry->name, "worker/", strlen("worker/")) == 0) {
            bool fits = entry->rank > 0 && entry->shape[0] == counts->count;
            status = add_tensor(golden, entry, strlen("worker/"), 1, NULL,
                                fits ? entry->data : NULL, error);
        }
    }
    return status;
}

static size_t count_expected(const struct opt_safetensors *expected)
{
    static const char *const prefixes[] = { "params/", "train/", "eval/", "state/" };
    size_t count = 0;

    for (size_t i = 0; i < opt_safetensors_count(expected); i++) {
        const char *name = opt_safetensors_entry(expected, i)->name;
        for (size_t k = 0; k < sizeof prefixes / sizeof prefixes[0]; k++) {
            count += strncmp(name, prefixes[k], strlen(prefixes[k])) == 0 ? 1 : 0;
        }
    }
    return count;
}

static enum opt_status read_case(struct golden_case *golden, const char *folder,
                                 struct opt_error *error)
{
    struct golden_files *files = golden->files;
    json_t *json = files->json;
    const char *kind = json_string_value(json_object_get(json, "kind"));
    const json_t *checkpoints = json_object_get(json, "checkpoints");
    enum opt_status status = read_tensors(folder, golden->name, &files->expected_blob,
                                          &files->expected, error);

    if (status != OPT_OK) {
        return status;
    }
    golden->rtol = json_number_value(json_object_get(json, "rtol"));
    golden->atol_params = json_number_value(json_object_get(json, "atol_params"));
    golden->steps = (size_t)json_integer_value(json_object_get(json, "steps"));
    golden->expected_count = count_expected(files->expected);
    if (json_array_size(checkpoints) > GOLDEN_CHECKPOINTS) {
        return opt_fail(error, OPT_DATA_LOSS, "%s has more than %d checkpoints",
                        golden->name, (int)GOLDEN_CHECKPOINTS);
    }
    for (size_t i = 0; i < json_array_size(checkpoints); i++) {
        golden->checkpoints[golden->checkpoint_count++] =
            (size_t)json_integer_value(json_array_get(checkpoints, i));
    }
    if (kind != NULL && strcmp(kind, "aggregation") == 0) {
        golden->kind = GOLDEN_AGGREGATION;
        return read_aggregation(golden, error);
    }
    if (kind != NULL && strcmp(kind, "stored") == 0) {
        golden->kind = GOLDEN_STORED;
        status = read_stored(golden, folder, error);
    } else if (kind != NULL && strcmp(kind, "sparse") == 0) {
        golden->kind = GOLDEN_SPARSE;
        status = read_sparse(golden, folder, error);
    } else if (kind != NULL && strcmp(kind, "function") == 0) {
        golden->kind = GOLDEN_FUNCTION;
        status = read_function(golden, error);
    } else {
        snprintf(golden->unsupported, sizeof golden->unsupported, "kind %s",
                 kind != NULL ? kind : "(none)");
        return OPT_OK;
    }
    if (status == OPT_OK) {
        read_spec(golden, json_object_get(json, "config"));
    }
    return status;
}

enum opt_status golden_case_load(const char *folder, const char *name,
                                 struct golden_case **out, struct opt_error *error)
{
    struct golden_case *golden = calloc(1, sizeof *golden);
    struct golden_files *files = calloc(1, sizeof *files);
    struct blob text = { NULL, 0 };
    json_error_t problem;
    enum opt_status status = OPT_RESOURCE_EXHAUSTED;

    if (golden == NULL || files == NULL) {
        free(golden);
        free(files);
        return opt_fail(error, status, "no memory for a case");
    }
    golden->files = files;
    snprintf(golden->name, sizeof golden->name, "%s", name);
    status = read_blob(folder, name, ".json", &text, error);
    if (status == OPT_OK) {
        files->json =
            json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &problem);
        status = files->json != NULL ? read_case(golden, folder, error)
                                     : opt_fail(error, OPT_DATA_LOSS, "%s.json: %s",
                                                name, problem.text);
    }
    free(text.data);
    if (status != OPT_OK) {
        golden_case_free(golden);
        return status;
    }
    *out = golden;
    return OPT_OK;
}

void golden_case_free(struct golden_case *golden)
{
    if (golden == NULL) {
        return;
    }
    struct golden_files *files = golden->files;
    opt_spec_fini(&golden->spec);
    opt_safetensors_free(files->expected);
    opt_safetensors_free(files->problem);
    free(files->expected_blob.data);
    free(files->problem_blob.data);
    free(files->rows);
    json_decref(files->json);
    free(files);
    free(golden);
}

const double *golden_expected(const struct golden_case *golden, const char *name,
                              size_t *n)
{
    const struct opt_safetensors_entry *entry =
        opt_safetensors_find(golden->files->expected, name);

    if (entry == NULL || entry->type != OPT_SAFETENSORS_F64) {
        return NULL;
    }
    *n = (size_t)entry->count;
    return entry->data;
}

double golden_state_tolerance(const struct golden_case *golden, const char *state)
{
    return json_number_value(
        json_object_get(json_object_get(golden->files->json, "atol_state"), state));
}
