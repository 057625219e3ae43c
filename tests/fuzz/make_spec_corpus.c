/* make_spec_corpus — the inputs that fuzz_spec starts from, and the words it tries.
 *
 *     make_spec_corpus FOLDER DICTIONARY
 *
 * Every optimizer there is, as an expression and as YAML; some changes; the requests of
 * the wire's cases. The dictionary has every name and word of the registry.
 */
#include <stdio.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/optim/rule.h"
#include "common/optim/spec.h"
#include "tests/support/wire_cases.h"

enum { ROOM = 1 << 16 };

static const char *const wrapped[] = {
    "adam(lr=1e-3, beta2=0.98) + decay(0.01, decoupled, lr=schedule) + "
    "clip(global_norm, "
    "1) + warmup(500) + cosine(20000, end=1e-5) + lookahead(6, alpha=0.5, "
    "momentum=pullback)",
    "rmsprop(momentum=.5, centered=true) + layerwise(gradient, phi_max=3, "
    "trust_coefficient=+1e-3, eps=1e-8, trust_max=1, min_ndim=2) + polynomial(9, "
    "power=2)",
    "sgd + tensors(\"*.b\\\"\\\\\", weight_decay=0, lr_scale=2, layerwise=none) + "
    "tensors(\"?\xc3\xa4\xe2\x80\xa8\", lr_scale=0) + aggregate(sum) + nonfinite(skip)",
};

static const char *const changes[] = {
    "lr=5e-4, weight_decay=0.1",
    "cosine(20000), clip(value, 1)",
    "tensors(\"*.bias\", lr_scale=2), lookahead(k=3)",
    "layerwise=none",
};

static bool save(const char *folder, char form, unsigned number, const void *bytes,
                 size_t size)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%c%02u", folder, form, number);
    FILE *out = fopen(path, "wb");
    if (out == NULL) {
        perror(path);
        return false;
    }
    bool well = fputc(form, out) != EOF && fwrite(bytes, 1, size, out) == size;
    return fclose(out) == 0 && well;
}

static bool save_optimizer(const char *folder, unsigned number, const char *expression)
{
    static char yaml[OPT_YAML_BYTES + 1];
    struct opt_spec spec;
    bool well = save(folder, 'e', number, expression, strlen(expression));
    if (opt_spec_parse(expression, &spec, NULL) != OPT_OK) {
        return well; /* what is not offered is an input too */
    }
    size_t size = opt_spec_print_yaml(&spec, yaml, sizeof(yaml));
    return save(folder, 'y', number, yaml, size) && well;
}

static bool save_inputs(const char *folder)
{
    static uint8_t packed[ROOM];
    size_t presets, rows;
    const struct opt_preset *preset = opt_presets(&presets);
    const struct opt_profile_row *row = opt_profile_rows(&rows);
    unsigned number = 0;
    bool well = true;
    for (size_t i = 0; i < presets; i++) {
        well = save_optimizer(folder, number++, preset[i].name) && well;
    }
    for (size_t i = 0; i < rows; i++) {
        well = save_optimizer(folder, number++, row[i].name) && well;
    }
    for (size_t i = 0; i < sizeof(wrapped) / sizeof(wrapped[0]); i++) {
        well = save_optimizer(folder, number++, wrapped[i]) && well;
    }
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        well = save(folder, (char)('0' + i), 0, changes[i], strlen(changes[i])) && well;
    }
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_any *any = &wire_cases[i].any;
        if (any->kind == WIRE_REQUEST &&
            (any->as.request.message == OPT_MESSAGE_CREATE ||
             any->as.request.message == OPT_MESSAGE_SET)) {
            size_t size = wire_any_pack(any, packed, sizeof(packed));
            well = save(folder, 'm', (unsigned)i, packed, size) && well;
        }
    }
    return well;
}

static void put_words(FILE *out)
{
    size_t options, terms, rules;
    const struct opt_option *option = opt_options_table(&options);
    const struct opt_term *term = opt_terms(&terms);
    const struct opt_rule *const *rule = opt_rules(&rules);
    for (size_t i = 0; i < rules; i++) {
        fprintf(out, "\"%s\"\n", rule[i]->name);
    }
    for (size_t i = 0; i < options; i++) {
        fprintf(out, "\"%s\"\n", option[i].name);
        for (size_t k = 0; option[i].words != NULL && option[i].words[k] != NULL; k++) {
            fprintf(out, "\"%s\"\n", option[i].words[k]);
        }
    }
    for (size_t i = 0; i < terms; i++) {
        fprintf(out, "\"%s\"\n", term[i].name);
        for (size_t k = 0; k < OPT_TERM_OPTIONS && term[i].options[k].option != NULL;
             k++) {
            fprintf(out, "\"%s\"\n", term[i].options[k].key);
        }
    }
    fputs("\"tensors\"\n\"pattern\"\n\"lr_scale\"\n\"1e-3\"\n\"1e999\"\n\"*.bias\"\n",
          out);
    fputs("\": {\"\n\"\\x0a  - {\"\n\") + \"\n\"&a \"\n\"*a\"\n\"---\"\n", out);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        (void)fprintf(stderr, "usage: make_spec_corpus FOLDER DICTIONARY\n");
        return 64;
    }
    FILE *out = fopen(argv[2], "w");
    if (out == NULL) {
        perror(argv[2]);
        return 1;
    }
    put_words(out);
    bool well = fclose(out) == 0;
    return save_inputs(argv[1]) && well ? 0 : 1;
}
