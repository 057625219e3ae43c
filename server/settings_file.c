/* settings_file — see settings_file.h. */
#include "server/settings_file.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/options.h"

/* What libcyaml says about an error: its first line, and the innermost place. */
struct complaint {
    char text[256];
    char key[64]; /* "": none */
    unsigned line;
};

static void on_complaint(cyaml_log_t level, void *context, const char *format,
                         va_list arguments)
{
    (void)level;
    struct complaint *complaint = context;
    char text[256];
    vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\n")] = '\0';
    const char *place = strstr(text, "(line: ");
    if (place != NULL) {
        if (complaint->line == 0) {
            complaint->line = (unsigned)strtoul(place + strlen("(line: "), NULL, 10);
            (void)sscanf(text, "%*[^']'%63[^']", complaint->key);
        }
    } else if (complaint->text[0] == '\0' && strstr(text, "Backtrace") == NULL) {
        const char *own = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
        snprintf(complaint->text, sizeof(complaint->text), "%s", own);
    }
}

unsigned settings_file_line(const struct settings_file *file, const char *key)
{
    size_t size = strlen(key);
    unsigned line = 1;
    for (const char *at = file->text; at != NULL && *at != '\0'; line++) {
        const char *word = at + strspn(at, " {\"'");
        if (strncmp(word, key, size) == 0 &&
            word[size + strspn(word + size, " \"'")] == ':') {
            return line;
        }
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    return 0;
}

/* The last of several lines with the same key. */
static unsigned last_line(const struct settings_file *file, const char *key)
{
    unsigned first = settings_file_line(file, key);
    const char *at = file->text;
    for (unsigned i = 0; i < first && at != NULL; i++) {
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    struct settings_file rest = { .text = (char *)(uintptr_t)at };
    unsigned again = first > 0 && at != NULL ? settings_file_line(&rest, key) : 0;
    return again > 0 ? first + again : first;
}

static enum opt_status explain(const struct settings_file *file,
                               const struct complaint *complaint, cyaml_err_t code,
                               const char *(*name)(size_t i, const void *context),
                               struct opt_error *error)
{
    static const char unexpected[] = "Unexpected key: ";
    static const char repeated[] = "Mapping field already seen: ";
    static const char not_one[] = "Expecting STRING, got ";
    static const char not_mapping[] = "Expecting MAPPING, got ";
    static const char parser[] = "libyaml: ";
    const char *text = complaint->text;
    if (strncmp(text, unexpected, strlen(unexpected)) == 0) {
        const char *key = text + strlen(unexpected);
        const char *near = opt_nearest(key, strlen(key), file->count, name, NULL);
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s:%u: unknown key \"%s\"; %s%s",
                        file->path, settings_file_line(file, key), key,
                        near != NULL ? "perhaps " : "optimd --help lists all keys",
                        near != NULL ? near : "");
    }
    if (strncmp(text, repeated, strlen(repeated)) == 0) {
        const char *key = text + strlen(repeated);
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "%s:%u: %s stands here for the second time; once would be right",
            file->path, last_line(file, key), key);
    }
    unsigned line = complaint->line > 0 ? complaint->line : 1;
    if (strncmp(text, not_one, strlen(not_one)) == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: %s: %s stands here; right would be one value, in which "
                        "several addresses have commas between them",
                        file->path, line, complaint->key,
                        strstr(text, "SEQUENCE") != NULL ? "a list" : "a mapping");
    }
    if (strncmp(text, not_mapping, strlen(not_mapping)) == 0) {
        text = strstr(text, "SEQUENCE") != NULL ? "the file is a list"
                                                : "the file is a single value";
    } else if (strncmp(text, parser, strlen(parser)) == 0) {
        text += strlen(parser);
    } else if (text[0] == '\0') {
        text = cyaml_strerror(code);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "%s:%u: %s%s%s; right would be lines such as \"max-frame: 64MiB\"",
                    file->path, line, complaint->key,
                    complaint->key[0] != '\0' ? ": " : "", text);
}

/* The whole file as text. */
static enum opt_status read_text(const char *path, char **out, struct opt_error *error)
{
    FILE *stream = fopen(path, "re");
    if (stream == NULL) {
        return opt_fail(error, OPT_NOT_FOUND, "%s: %s", path, strerror(errno));
    }
    char *text = malloc(SETTINGS_FILE_MAX + 2);
    if (text == NULL) {
        fclose(stream);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "%s: no memory", path);
    }
    size_t size = fread(text, 1, SETTINGS_FILE_MAX + 1, stream);
    int failed = ferror(stream);
    fclose(stream);
    text[size] = '\0';
    enum opt_status status = OPT_OK;
    if (failed) {
        status = opt_fail(error, OPT_UNAVAILABLE, "%s: cannot be read", path);
    } else if (size > SETTINGS_FILE_MAX) {
        status = opt_fail(error, OPT_INVALID_ARGUMENT,
                          "%s: longer than the %d bytes that a configuration may have",
                          path, SETTINGS_FILE_MAX);
    } else if (strlen(text) != size) {
        status = opt_fail(error, OPT_INVALID_ARGUMENT,
                          "%s: has a zero byte after %zu bytes; it is not a text", path,
                          strlen(text));
    }
    if (status != OPT_OK) {
        free(text);
        return status;
    }
    *out = text;
    return OPT_OK;
}

/* A second document would be passed over in silence. *says: there is more than comments
 * in the first. */
static enum opt_status check_single(const struct settings_file *file, bool *says,
                                    struct opt_error *error)
{
    bool begun = false;
    *says = false;
    unsigned line = 1;
    for (const char *at = file->text; at != NULL && *at != '\0'; line++) {
        size_t size = strcspn(at, "\n");
        bool mark = strncmp(at, "---", 3) == 0;
        if (mark && begun) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s:%u: a second document begins; right would be one",
                            file->path, line);
        }
        size_t blank = strspn(at, " ");
        bool content = !mark && blank < size && at[blank] != '#' && at[blank] != '%';
        begun = begun || mark || content;
        *says = *says || content;
        at = at[size] == '\n' ? at + size + 1 : NULL;
    }
    return OPT_OK;
}

static cyaml_schema_field_t *
make_fields(size_t count, const char *(*name)(size_t i, const void *context))
{
    cyaml_schema_field_t *fields = calloc(count + 1, sizeof(*fields));
    for (size_t i = 0; fields != NULL && i < count; i++) {
        fields[i] = (cyaml_schema_field_t){
            .key = name(i, NULL),
            .data_offset = (uint32_t)(i * sizeof(char *)),
            .value = { .type = CYAML_STRING,
                       .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                       .data_size = 1,
                       .string = { .min = 0, .max = SETTINGS_FILE_MAX } },
        };
    }
    return fields;
}

static enum opt_status parse(struct settings_file *file,
                             const char *(*name)(size_t i, const void *context),
                             struct opt_error *error)
{
    cyaml_schema_field_t *fields = make_fields(file->count, name);
    if (fields == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "%s: no memory", file->path);
    }
    const cyaml_schema_value_t schema = {
        .type = CYAML_MAPPING,
        .flags = CYAML_FLAG_POINTER,
        .data_size = (uint32_t)(file->count * sizeof(char *)),
        .mapping = { .fields = fields },
    };
    struct complaint complaint = { .line = 0 };
    const cyaml_config_t config = {
        .log_fn = on_complaint,
        .log_ctx = &complaint,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
    cyaml_data_t *data = NULL;
    cyaml_err_t code = cyaml_load_data((const uint8_t *)file->text, strlen(file->text),
                                       &config, &schema, &data, NULL);
    enum opt_status status = OPT_OK;
    if (code != CYAML_OK) {
        status = explain(file, &complaint, code, name, error);
    } else if (data != NULL) {
        char **loaded = (char **)data;
        for (size_t i = 0; i < file->count; i++) {
            file->values[i] = loaded[i];
            loaded[i] = NULL;
        }
        cyaml_free(&config, &schema, data, 0);
    }
    free(fields);
    return status;
}

enum opt_status settings_file_read(const char *path, size_t count,
                                   const char *(*name)(size_t i, const void *context),
                                   struct settings_file *out, struct opt_error *error)
{
    *out = (struct settings_file){ .path = path, .count = count };
    out->values = calloc(count, sizeof(*out->values));
    if (out->values == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for the settings");
    }
    if (path == NULL) {
        return OPT_OK;
    }
    bool says = false;
    enum opt_status status = read_text(path, &out->text, error);
    if (status == OPT_OK) {
        status = check_single(out, &says, error);
    }
    if (status == OPT_OK && says) {
        status = parse(out, name, error);
    }
    if (status != OPT_OK) {
        settings_file_free(out);
    }
    return status;
}

void settings_file_free(struct settings_file *file)
{
    for (size_t i = 0; i < file->count && file->values != NULL; i++) {
        free(file->values[i]);
    }
    free(file->values);
    free(file->text);
    *file = (struct settings_file){ .path = NULL };
}
