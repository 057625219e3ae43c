/* fuzz_spec — any bytes, as a specification in each of its forms.
 *
 * The first byte says which: 'e' an expression, 'y' YAML, 'm' a request with a
 * specification or a change in parts, and anything else a change of the preset with
 * that number. What is accepted prints one canonical text, from which expression, YAML
 * and message all come back; what is refused has a sentence.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/change.h"
#include "common/optim/rule.h"
#include "common/optim/spec.h"
#include "common/optim/spec_yaml.h"
#include "tests/support/wire_cases.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { TEXT = 4097, SMALL_ARENA = 256 << 10, DATA_BYTES = 64 };

static void demand(bool holds, const char *what, const char *text)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_spec: %s: %s\n", what, text);
        abort();
    }
}

static void demand_same(const struct opt_spec *spec, const char *canonical,
                        const char *form)
{
    static char text[TEXT];

    demand(opt_spec_print(spec, text, sizeof text) < sizeof text, "too long", form);
    demand(strcmp(text, canonical) == 0, form, text);
}

static void comes_back(const struct opt_spec *spec)
{
    static char canonical[TEXT], yaml[OPT_YAML_BYTES + 1];
    static struct opt_spec again;
    static struct opt_spec_parts parts;
    struct opt_error error = { .text = "" };

    size_t size = opt_spec_print(spec, canonical, sizeof canonical);
    demand(size < sizeof canonical, "the canonical text is too long", canonical);
    demand(opt_spec_parse(canonical, &again, &error) == OPT_OK, error.text, canonical);
    demand_same(&again, canonical, "the expression reads back as another");
    opt_spec_fini(&again);

    size = opt_spec_print_yaml(spec, yaml, sizeof yaml);
    demand(size <= OPT_YAML_BYTES, "the YAML is too long", canonical);
    demand(opt_spec_read_yaml(yaml, size, "yaml", &again, &error) == OPT_OK, error.text,
           yaml);
    demand_same(&again, canonical, "the YAML reads back as another");
    opt_spec_fini(&again);

    opt_spec_to_wire(spec, &parts);
    demand(opt_spec_from_wire(&parts.wire, &again, &error) == OPT_OK, error.text,
           canonical);
    demand_same(&again, canonical, "the message reads back as another");
    opt_spec_fini(&again);
}

/* Gives the specification up, if there is one. */
static void judge(enum opt_status status, struct opt_spec *spec,
                  const struct opt_error *error)
{
    if (status == OPT_OK) {
        comes_back(spec);
        opt_spec_fini(spec);
    } else {
        demand(error->text[0] != '\0' && error->status == status, "no sentence", "");
    }
}

static void change(const char *preset, const struct opt_set *set)
{
    static struct opt_spec spec;
    static struct opt_change read;
    struct opt_error error = { .text = "" };

    demand(opt_spec_parse(preset, &spec, &error) == OPT_OK, error.text, preset);
    enum opt_status status = opt_change_read(spec.rule, set, &read, &error);
    if (status == OPT_OK) {
        status = opt_change_apply(&read, &spec, &error);
        opt_change_fini(&read);
    }
    if (status != OPT_OK) {
        opt_spec_fini(&spec); /* as it was */
    }
    judge(status, &spec, &error);
}

static void take_message(const uint8_t *bytes, size_t size)
{
    static struct opt_spec spec;
    struct opt_arena arena;
    struct wire_any any = { .kind = WIRE_REQUEST };
    struct opt_error error = { .text = "" };

    opt_arena_init(&arena, SMALL_ARENA);
    if (wire_any_read(bytes, size, DATA_BYTES, &arena, &any, &error) == OPT_OK) {
        const struct opt_request *request = &any.as.request;
        if (request->message == OPT_MESSAGE_CREATE) {
            judge(
                opt_spec_from_wire(&request->body.create.specification, &spec, &error),
                &spec, &error);
        } else if (request->message == OPT_MESSAGE_SET) {
            change("lamb", &request->body.set);
        }
    }
    opt_arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct opt_spec spec;
    struct opt_error error = { .text = "" };
    size_t presets;
    const struct opt_preset *preset = opt_presets(&presets);

    if (size == 0) {
        return 0;
    }
    uint8_t form = bytes[0];
    char *text = malloc(size);
    demand(text != NULL, "no memory", "");
    memcpy(text, bytes + 1, size - 1);
    text[size - 1] = '\0';
    if (form == 'e') {
        judge(opt_spec_parse(text, &spec, &error), &spec, &error);
    } else if (form == 'y') {
        judge(opt_spec_read_yaml(text, size - 1, "yaml", &spec, &error), &spec, &error);
    } else if (form == 'm') {
        take_message(bytes + 1, size - 1);
    } else {
        const struct opt_set set = { .model = "m", .change = text };
        change(preset[form % presets].expression, &set);
    }
    free(text);
    return 0;
}
