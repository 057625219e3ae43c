/* spec_yaml — see spec_yaml.h. libyaml makes a tree of the text, in which every node
 * knows its line; it is walked once, the rule first, wherever it stands.
 */
#include "common/optim/spec_yaml.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "common/name.h"
#include "common/optim/compose.h"
#include "common/optim/options.h"

struct reader {
    const char *name;
    yaml_document_t document;
    struct opt_composition composition;
    bool tensors; /* have come */
    struct opt_error *error;
};

static enum opt_status fail_at(struct reader *r, size_t line, const char *sentence)
{
    return opt_fail(r->error, OPT_INVALID_ARGUMENT, "%.100s:%zu: %.400s", r->name,
                    line + 1, sentence);
}

static enum opt_status located(struct reader *r, const yaml_node_t *node,
                               const struct opt_error *error)
{
    return fail_at(r, node->start_mark.line, error->text);
}

static yaml_node_t *node_of(struct reader *r, int index)
{
    return yaml_document_get_node(&r->document, index);
}

/* The text of a scalar, or a sentence about what stands there. */
static enum opt_status take_text(struct reader *r, const yaml_node_t *node,
                                 const char *what, const char **out)
{
    struct opt_error error;
    char sentence[200];

    if (node->type != YAML_SCALAR_NODE) {
        snprintf(sentence, sizeof sentence,
                 "%s must be a single word or number, not %s", what,
                 node->type == YAML_MAPPING_NODE ? "a mapping" : "a list");
        return fail_at(r, node->start_mark.line, sentence);
    }
    *out = (const char *)node->data.scalar.value;
    return opt_text_check(*out, node->data.scalar.length, what, &error) == OPT_OK
               ? OPT_OK
               : located(r, node, &error);
}

static bool is_empty(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0 &&
           node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* A value for the option called value->name. */
static enum opt_status take_value(struct reader *r, const yaml_node_t *node,
                                  struct opt_wire_option *value)
{
    struct opt_error error;
    const char *text;
    enum opt_status status =
        take_text(r, node, value->name[0] != '\0' ? value->name : "an argument", &text);

    if (status == OPT_OK && opt_compose_value(text, value, &error) != OPT_OK) {
        return located(r, node, &error);
    }
    return status;
}

/* ------------------------------------------------------------------ terms */

static enum opt_status read_argument(struct reader *r, struct opt_term_use *use,
                                     const char *name, const yaml_node_t *node)
{
    struct opt_wire_option value = { .name = name };
    struct opt_error error;
    enum opt_status status = take_value(r, node, &value);

    if (status == OPT_OK &&
        opt_compose_argument(&r->composition, use, &value, &error) != OPT_OK) {
        return located(r, node, &error);
    }
    return status;
}

static enum opt_status read_mapping(struct reader *r, struct opt_term_use *use,
                                    const yaml_node_t *node)
{
    enum opt_status status = OPT_OK;

    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         status == OPT_OK && pair < node->data.mapping.pairs.top; pair++) {
        const char *name;

        status = take_text(r, node_of(r, pair->key), "a key", &name);
        if (status == OPT_OK && name[0] == '\0') {
            status = fail_at(r, node_of(r, pair->key)->start_mark.line,
                             "a key must not be empty");
        }
        if (status == OPT_OK) {
            status = read_argument(r, use, name, node_of(r, pair->value));
        }
    }
    return status;
}

static enum opt_status read_term(struct reader *r, const struct opt_term *term,
                                 const yaml_node_t *key, const yaml_node_t *node)
{
    struct opt_term_use use = { .term = term };
    struct opt_error error;
    enum opt_status status = OPT_OK;

    if (node->type == YAML_MAPPING_NODE) {
        status = read_mapping(r, &use, node);
    } else if (node->type == YAML_SEQUENCE_NODE) {
        for (yaml_node_item_t *item = node->data.sequence.items.start;
             status == OPT_OK && item < node->data.sequence.items.top; item++) {
            status = read_argument(r, &use, "", node_of(r, *item));
        }
    } else if (!is_empty(node)) {
        status = read_argument(r, &use, "", node);
    }
    if (status == OPT_OK && opt_compose_term(&r->composition, &use, &error) != OPT_OK) {
        return located(r, key, &error);
    }
    return status;
}

/* ------------------------------------------------------------------ tensors */

static const yaml_node_t *find_key(struct reader *r, const yaml_node_t *mapping,
                                   const char *name)
{
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_of(r, pair->key);
        if (key->type == YAML_SCALAR_NODE && key->data.scalar.length == strlen(name) &&
            memcmp(key->data.scalar.value, name, strlen(name)) == 0) {
            return node_of(r, pair->value);
        }
    }
    return NULL;
}

static enum opt_status read_group_option(struct reader *r, struct opt_group *group,
                                         const yaml_node_t *key,
                                         const yaml_node_t *node)
{
    struct opt_wire_option value = { .name = "" };
    struct opt_error error;
    enum opt_status status = take_text(r, key, "a key", &value.name);

    if (status == OPT_OK) {
        status = take_value(r, node, &value);
    }
    if (status == OPT_OK && opt_group_set(group, &value, &error) != OPT_OK) {
        return located(r, key, &error);
    }
    return status;
}

static enum opt_status read_group(struct reader *r, const yaml_node_t *node)
{
    struct opt_group *group;
    struct opt_error error;
    const char *pattern;
    const yaml_node_t *named =
        node->type == YAML_MAPPING_NODE ? find_key(r, node, "pattern") : NULL;

    if (named == NULL) {
        return fail_at(r, node->start_mark.line,
                       "an entry of tensors is a mapping with a pattern, such as "
                       "{pattern: \"*.bias\", weight_decay: 0}");
    }
    enum opt_status status = take_text(r, named, "a pattern", &pattern);
    if (status != OPT_OK) {
        return status;
    }
    if (opt_group_add(&r->composition.spec, pattern, &group, &error) != OPT_OK) {
        return located(r, named, &error);
    }
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         status == OPT_OK && pair < node->data.mapping.pairs.top; pair++) {
        if (node_of(r, pair->value) != named) {
            status = read_group_option(r, group, node_of(r, pair->key),
                                       node_of(r, pair->value));
        }
    }
    return status;
}

static enum opt_status read_tensors(struct reader *r, const yaml_node_t *key,
                                    const yaml_node_t *node)
{
    enum opt_status status = OPT_OK;

    if (r->tensors) {
        return fail_at(r, key->start_mark.line, "tensors is given twice");
    }
    r->tensors = true;
    if (node->type != YAML_SEQUENCE_NODE) {
        return fail_at(r, node->start_mark.line,
                       "tensors must be a list of mappings with a pattern each");
    }
    for (yaml_node_item_t *item = node->data.sequence.items.start;
         status == OPT_OK && item < node->data.sequence.items.top; item++) {
        status = read_group(r, node_of(r, *item));
    }
    return status;
}

/* ------------------------------------------------------------------ the document */

/* The rule's options, the terms, and what else may be a key. */
static const char *key_name(size_t i, const void *context)
{
    const struct reader *r = context;
    size_t option_count, term_count;
    const struct opt_option *options = opt_options_table(&option_count);
    const struct opt_term *terms = opt_terms(&term_count);

    if (i < option_count) {
        return opt_option_applies(&options[i], r->composition.spec.rule)
                   ? options[i].name
                   : NULL;
    }
    i -= option_count;
    return i < term_count ? terms[i].name : i == term_count ? "tensors" : "rule";
}

static enum opt_status unknown_key(struct reader *r, const yaml_node_t *key,
                                   const char *name)
{
    size_t option_count, term_count;
    char sentence[OPT_ERROR_TEXT];
    struct opt_error error;

    opt_options_table(&option_count);
    opt_terms(&term_count);
    const char *nearest =
        opt_nearest(name, strlen(name), option_count + term_count + 2, key_name, r);
    if (nearest != NULL) {
        snprintf(sentence, sizeof sentence,
                 "unknown key '%.40s': did you mean '%.40s'?", name, nearest);
        return fail_at(r, key->start_mark.line, sentence);
    }
    opt_term_unknown(name, &error);
    snprintf(sentence, sizeof sentence,
             "unknown key '%.40s': it is no option, and %.200s", name,
             strstr(error.text, "there are"));
    return fail_at(r, key->start_mark.line, sentence);
}

static enum opt_status read_entry(struct reader *r, const yaml_node_t *key,
                                  const yaml_node_t *node)
{
    struct opt_wire_option value = { .name = "" };
    struct opt_error error;
    enum opt_status status = take_text(r, key, "a key", &value.name);

    if (status != OPT_OK) {
        return status;
    }
    if (strcmp(value.name, "tensors") == 0) {
        return read_tensors(r, key, node);
    }
    const struct opt_term *term = opt_term_find(value.name);
    bool option = opt_option_find(value.name, strlen(value.name)) != NULL;
    bool single = node->type == YAML_SCALAR_NODE && !is_empty(node);
    if (term != NULL && !(option && single)) {
        return read_term(r, term, key, node);
    }
    if (!option) {
        return unknown_key(r, key, value.name);
    }
    status = take_value(r, node, &value);
    if (status == OPT_OK &&
        opt_compose_option(&r->composition, &value, &error) != OPT_OK) {
        return located(r, key, &error);
    }
    return status;
}

static enum opt_status read_rule(struct reader *r, const yaml_node_t *root)
{
    struct opt_error error;
    const char *rule;
    const yaml_node_t *node = find_key(r, root, "rule");

    if (node == NULL) {
        return fail_at(r, root->start_mark.line,
                       "a specification needs a rule, such as rule: adam");
    }
    enum opt_status status = take_text(r, node, "rule", &rule);
    if (status == OPT_OK &&
        opt_compose_begin(&r->composition, rule, &error) != OPT_OK) {
        return located(r, node, &error);
    }
    return status;
}

static enum opt_status read_document(struct reader *r, struct opt_spec *out)
{
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    struct opt_error error;
    bool rule = false;

    if (root == NULL || root->type != YAML_MAPPING_NODE) {
        return fail_at(r, root == NULL ? 0 : root->start_mark.line,
                       "a specification is a mapping: rule: adam, then options and "
                       "terms, one to a line");
    }
    enum opt_status status = read_rule(r, root);
    const yaml_node_t *named = find_key(r, root, "rule");
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         status == OPT_OK && pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_of(r, pair->key), *node = node_of(r, pair->value);
        if (node == named && !rule) {
            rule = true;
        } else if (key->type == YAML_SCALAR_NODE && key->data.scalar.length == 4 &&
                   memcmp(key->data.scalar.value, "rule", 4) == 0) {
            status = fail_at(r, key->start_mark.line, "rule is given twice");
        } else {
            status = read_entry(r, key, node);
        }
    }
    enum opt_status read = status;
    status = opt_compose_end(&r->composition, read, out, &error);
    if (read == OPT_OK && status != OPT_OK) {
        opt_fail(r->error, status, "%.100s: %.400s", r->name, error.text);
    }
    return status;
}

static enum opt_status not_yaml(struct reader *r, const yaml_parser_t *parser)
{
    char sentence[200];

    if (parser->error == YAML_MEMORY_ERROR) {
        return opt_fail(r->error, OPT_RESOURCE_EXHAUSTED,
                        "%.100s: no memory to read it", r->name);
    }
    snprintf(sentence, sizeof sentence, "not YAML: %.100s%s%.60s",
             parser->problem != NULL ? parser->problem : "unreadable",
             parser->context != NULL ? " " : "",
             parser->context != NULL ? parser->context : "");
    return fail_at(r, parser->problem_mark.line, sentence);
}

/* The only document of the text, or what is wrong with it. */
static enum opt_status load(struct reader *r, const char *text, size_t size)
{
    yaml_parser_t parser;
    yaml_document_t second;
    enum opt_status status = OPT_OK;

    if (yaml_parser_initialize(&parser) == 0) {
        return opt_fail(r->error, OPT_RESOURCE_EXHAUSTED, "no memory to read YAML");
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    if (yaml_parser_load(&parser, &r->document) == 0) {
        status = not_yaml(r, &parser);
        yaml_parser_delete(&parser);
        return status;
    }
    if (yaml_document_get_root_node(&r->document) != NULL) {
        if (yaml_parser_load(&parser, &second) == 0) {
            status = not_yaml(r, &parser);
        } else {
            const yaml_node_t *root = yaml_document_get_root_node(&second);
            if (root != NULL) {
                status = fail_at(r, root->start_mark.line,
                                 "a second document; a file has one specification");
            }
            yaml_document_delete(&second);
        }
    }
    if (status != OPT_OK) {
        yaml_document_delete(&r->document);
    }
    yaml_parser_delete(&parser);
    return status;
}

enum opt_status opt_spec_read_yaml(const char *text, size_t size, const char *name,
                                   struct opt_spec *out, struct opt_error *error)
{
    struct reader reader = { .name = name, .error = error };

    if (size > OPT_YAML_BYTES) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%.100s: a specification may have %d bytes; this one has %zu",
                        name, (int)OPT_YAML_BYTES, size);
    }
    enum opt_status status = load(&reader, text, size);
    if (status == OPT_OK) {
        status = read_document(&reader, out);
        yaml_document_delete(&reader.document);
    }
    return status;
}
