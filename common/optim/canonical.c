/* canonical — a specification as the one text that stands for it.
 *
 * Terms in the order of the table, in each the options that differ from the rule's
 * defaults, numbers in the shortest decimal that reads back; so two texts are equal if
 * and only if the specifications are. An expression and YAML differ in their
 * punctuation. A change of one is printed here too. Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "common/optim/change.h"
#include "common/optim/number.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

/* What stands between the words. */
struct punctuation {
    const char *rule, *first_option, *option, *end_rule;
    const char *term, *begin, *assign, *comma, *end;
    const char *groups, *group, *pattern, *end_group;
    bool positions; /* arguments may go without their names */
    bool escapes;   /* characters that YAML has no place for */
};

static const struct punctuation expression = {
    .rule = "",
    .first_option = "(",
    .option = ", ",
    .end_rule = ")",
    .term = " + ",
    .begin = "(",
    .assign = "=",
    .comma = ", ",
    .end = ")",
    .groups = "",
    .group = " + tensors(",
    .pattern = "",
    .end_group = ")",
    .positions = true,
};

static const struct punctuation yaml = {
    .rule = "rule: ",
    .first_option = "\n",
    .option = "\n",
    .end_rule = "",
    .term = "\n",
    .begin = ": {",
    .assign = ": ",
    .comma = ", ",
    .end = "}",
    .groups = "\ntensors:",
    .group = "\n  - {",
    .pattern = "pattern: ",
    .end_group = "}",
    .escapes = true,
};

/* A part of a change. */
static const struct punctuation part = {
    .assign = "=",
    .comma = ", ",
    .group = "tensors(",
    .pattern = "",
    .end_group = ")",
};

struct printer {
    const struct punctuation *mark;
    char *out;
    size_t capacity, length; /* length of the whole, as if there were room */
};

static void put_bytes(struct printer *p, const char *text, size_t size)
{
    if (p->length + 1 < p->capacity) {
        size_t room = p->capacity - 1 - p->length;
        memcpy(p->out + p->length, text, size < room ? size : room);
    }
    p->length += size;
}

static void put(struct printer *p, const char *text)
{
    put_bytes(p, text, strlen(text));
}

static void put_value(struct printer *p, const struct opt_option *option, double value)
{
    char text[OPT_NUMBER_TEXT];

    opt_option_print(option, value, text, sizeof text);
    put(p, text);
}

static const struct opt_option *find(const char *name)
{
    return opt_option_find(name, strlen(name));
}

static bool differs(const struct opt_spec *spec, const struct opt_option *option)
{
    return opt_option_get(option, &spec->options) !=
           opt_option_default(option, spec->rule);
}

static void put_rule(struct printer *p, const struct opt_spec *spec)
{
    bool first = true;

    put(p, p->mark->rule);
    put(p, spec->rule->name);
    for (const struct opt_rule_option *o = spec->rule->options; o->name != NULL; o++) {
        const struct opt_option *option = find(o->name);
        if (differs(spec, option)) {
            put(p, first ? p->mark->first_option : p->mark->option);
            put(p, o->name);
            put(p, p->mark->assign);
            put_value(p, option, opt_option_get(option, &spec->options));
            first = false;
        }
    }
    put(p, first ? "" : p->mark->end_rule);
}

/* The first option is printed with every term, the others by position up to the last
 * that is required or differs, or by name. */
static void put_term(struct printer *p, const struct opt_spec *spec,
                     const struct opt_term *term)
{
    bool any = false, first = true;
    size_t last = term->required;

    for (size_t i = 0; i < OPT_TERM_OPTIONS && term->options[i].option != NULL; i++) {
        if (differs(spec, find(term->options[i].option))) {
            any = true;
            last = i < term->positional && i + 1 > last ? i + 1 : last;
        }
    }
    if (term->selects != NULL) {
        const struct opt_option *option = find(term->selects);
        double value = opt_option_get(option, &spec->options);
        any = differs(spec, option) &&
              (strcmp(term->selects, term->name) == 0 || (int)value == term->word);
    }
    if (!any) {
        return;
    }
    put(p, p->mark->term);
    put(p, term->name);
    put(p, p->mark->begin);
    for (size_t i = 0; i < OPT_TERM_OPTIONS && term->options[i].option != NULL; i++) {
        const struct opt_option *option = find(term->options[i].option);
        if (i >= last && !differs(spec, option)) {
            continue;
        }
        put(p, first ? "" : p->mark->comma);
        first = false;
        if (i >= term->positional || !p->mark->positions) {
            put(p, term->options[i].key);
            put(p, p->mark->assign);
        }
        put_value(p, option, opt_option_get(option, &spec->options));
    }
    put(p, p->mark->end);
}

/* One character of well-formed UTF-8 and how many bytes it has. */
static size_t character(const char *text, uint32_t *out)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t size = c[0] < 0x80 ? 1 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;

    *out = size == 1 ? c[0] : c[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        *out = *out << 6 | (c[i] & 0x3fu);
    }
    return size;
}

/* What YAML refuses, or takes for the end of a line, of what names may have in them. */
static bool is_special(uint32_t c)
{
    return c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff;
}

static void put_pattern(struct printer *p, const char *pattern)
{
    const char *plain = pattern; /* from here on nothing is escaped, up to at */
    size_t size;

    put(p, "\"");
    for (const char *at = pattern; *at != '\0'; at += size) {
        uint32_t c;

        size = character(at, &c);
        if (p->mark->escapes && is_special(c)) {
            char one[16];
            put_bytes(p, plain, (size_t)(at - plain));
            snprintf(one, sizeof one, "\\u%04x", (unsigned)c);
            put(p, one);
            plain = at + size;
        } else if (c == '"' || c == '\\') {
            put_bytes(p, plain, (size_t)(at - plain));
            put(p, "\\");
            plain = at;
        }
    }
    put(p, plain);
    put(p, "\"");
}

static void put_number(struct printer *p, const char *name, double value)
{
    char text[OPT_NUMBER_TEXT];

    opt_number_print(value, text);
    put(p, p->mark->comma);
    put(p, name);
    put(p, p->mark->assign);
    put(p, text);
}

static void put_group(struct printer *p, const struct opt_group *group)
{
    put(p, p->mark->group);
    put(p, p->mark->pattern);
    put_pattern(p, group->pattern);
    if (group->has_weight_decay) {
        put_number(p, "weight_decay", group->weight_decay);
    }
    if (group->has_lr_scale) {
        put_number(p, "lr_scale", group->lr_scale);
    }
    if (group->layerwise_none) {
        put(p, p->mark->comma);
        put(p, "layerwise");
        put(p, p->mark->assign);
        put(p, "none");
    }
    if (group->may_miss) {
        put(p, p->mark->comma);
        put(p, "missing");
        put(p, p->mark->assign);
        put(p, "ok");
    }
    put(p, p->mark->end_group);
}

static size_t print(const struct punctuation *mark, const struct opt_spec *spec,
                    char *out, size_t capacity)
{
    struct printer p = { .mark = mark, .out = out, .capacity = capacity };
    size_t count;
    const struct opt_term *terms = opt_terms(&count);

    put_rule(&p, spec);
    for (size_t i = 0; i < count; i++) {
        put_term(&p, spec, &terms[i]);
    }
    put(&p, spec->group_count > 0 ? mark->groups : "");
    for (size_t i = 0; i < spec->group_count; i++) {
        put_group(&p, &spec->groups[i]);
    }
    if (capacity > 0) {
        out[p.length < capacity ? p.length : capacity - 1] = '\0';
    }
    return p.length;
}

size_t opt_spec_print(const struct opt_spec *spec, char *out, size_t capacity)
{
    return print(&expression, spec, out, capacity);
}

size_t opt_spec_print_yaml(const struct opt_spec *spec, char *out, size_t capacity)
{
    return print(&yaml, spec, out, capacity);
}

size_t opt_change_print(const struct opt_change *change, char *out, size_t capacity)
{
    struct printer p = { .mark = &part, .out = out, .capacity = capacity };
    size_t count;
    const struct opt_option *table = opt_options_table(&count);

    for (size_t i = 0; i < count; i++) {
        if ((change->given >> i & 1u) != 0) {
            put(&p, p.length > 0 ? p.mark->comma : "");
            put(&p, table[i].name);
            put(&p, p.mark->assign);
            put_value(&p, &table[i],
                      opt_option_get(&table[i], &change->values.options));
        }
    }
    for (size_t i = 0; i < change->values.group_count; i++) {
        put(&p, p.length > 0 ? p.mark->comma : "");
        put_group(&p, &change->values.groups[i]);
    }
    if (capacity > 0) {
        out[p.length < capacity ? p.length : capacity - 1] = '\0';
    }
    return p.length;
}
