/* spec — see spec.h. */
#include "tools/optctl/spec.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/number.h"
#include "common/optim/spec_yaml.h"
#include "tools/optctl/commands.h"

enum opt_status spec_read(const char *path, struct opt_spec *out,
                          struct opt_error *error)
{
    static char text[OPT_YAML_BYTES + 1]; /* one more shows that there is too much */
    FILE *file = fopen(path, "r");

    if (file == NULL) {
        return opt_fail(error, OPT_NOT_FOUND, "%.200s cannot be opened: %s", path,
                        strerror(errno));
    }
    size_t size = fread(text, 1, sizeof(text), file);
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) {
        return opt_fail(error, OPT_DATA_LOSS, "%.200s cannot be read", path);
    }
    return opt_spec_read_yaml(text, size, path, out, error);
}

/* ---------------------------------------------------------------- the message */

static void put_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        fprintf(out, "%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
    }
    fputc('"', out);
}

static void put_option(FILE *out, const struct opt_wire_option *option)
{
    char number[OPT_NUMBER_TEXT];

    fprintf(out, "options { name: \"%s\" ", option->name);
    switch (option->kind) {
    case OPT_VALUE_NUMBER:
        opt_number_print(option->number, number);
        fprintf(out, "number: %s }", number);
        break;
    case OPT_VALUE_WORD:
        fprintf(out, "word: \"%s\" }", option->word);
        break;
    case OPT_VALUE_FLAG:
        fprintf(out, "flag: %s }", option->flag ? "true" : "false");
        break;
    }
}

/* In protobuf's text format, without a line's end. To be freed. */
static char *message_text(const struct opt_wire_spec *wire)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return NULL;
    }
    fprintf(out, "rule: \"%s\"", wire->rule);
    for (size_t i = 0; i < wire->option_count; i++) {
        fputc('\n', out);
        put_option(out, &wire->options[i]);
    }
    for (size_t i = 0; i < wire->group_count; i++) {
        const struct opt_wire_group *group = &wire->groups[i];
        fputs("\ngroups { pattern: ", out);
        put_string(out, group->pattern);
        for (size_t k = 0; k < group->option_count; k++) {
            fputc(' ', out);
            put_option(out, &group->options[k]);
        }
        fputs(" }", out);
    }
    bool failed = ferror(out) != 0;
    if (fclose(out) == 0 && !failed) {
        return text;
    }
    free(text);
    return NULL;
}

/* ---------------------------------------------------------------- all forms */

static int answer(const struct ctl *ctl, const struct opt_spec *spec)
{
    static struct opt_spec_parts parts;
    static char expression[OPT_YAML_BYTES], yaml[OPT_YAML_BYTES];

    opt_spec_print(spec, expression, sizeof(expression));
    opt_spec_print_yaml(spec, yaml, sizeof(yaml));
    opt_spec_to_wire(spec, &parts);
    char *message = message_text(&parts.wire);
    if (message == NULL || ctl->json) {
        json_t *value = message == NULL
                            ? NULL
                            : json_pack("{s:s, s:s, s:s}", "expression", expression,
                                        "yaml", yaml, "message", message);
        free(message);
        return ctl_answer(ctl, value);
    }
    printf("expression\n\n%s\n\nYAML\n\n%s\n\nmessage\n\n%s\n", expression, yaml,
           message);
    free(message);
    return ctl_done(ctl);
}

int run_spec(struct ctl *ctl)
{
    const char *file = ctl_value(ctl, "file");
    struct opt_spec spec;
    struct opt_error error;
    if (ctl->count != (file == NULL ? 1 : 0)) {
        return ctl_wrong(ctl, "spec takes an expression, or --file with a YAML file");
    }
    enum opt_status status = file != NULL
                                 ? spec_read(file, &spec, &error)
                                 : opt_spec_parse(ctl->arguments[0], &spec, &error);
    if (status != OPT_OK) {
        return ctl_refused(ctl, &error);
    }
    int code = answer(ctl, &spec);
    opt_spec_fini(&spec);
    return code;
}

bool spec_print_yaml(const char *expression, struct opt_error *error)
{
    static char yaml[OPT_YAML_BYTES];
    struct opt_spec spec;

    if (opt_spec_parse(expression, &spec, error) != OPT_OK) {
        return false;
    }
    opt_spec_print_yaml(&spec, yaml, sizeof(yaml));
    opt_spec_fini(&spec);
    puts(yaml);
    return true;
}
