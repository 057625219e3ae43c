/* canonical — a specification as the one text that stands for it.
 *
 * Terms in the order of the table, in each the options that differ from the rule's
 * defaults, numbers in the shortest decimal that reads back; so two texts are equal if
 * and only if the specifications are. Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "common/optim/number.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

struct printer {
    char *out;
    size_t capacity, length; /* length of the whole, as if there were room */
};

static void put(struct printer *p, const char *text)
{
    size_t size = strlen(text);

    for (size_t i = 0; i < size; i++, p->length++) {
        if (p->length + 1 < p->capacity) {
            p->out[p->length] = text[i];
        }
    }
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

    put(p, spec->rule->name);
    for (const struct opt_rule_option *o = spec->rule->options; o->name != NULL; o++) {
        const struct opt_option *option = find(o->name);
        if (differs(spec, option)) {
            put(p, first ? "(" : ", ");
            put(p, o->name);
            put(p, "=");
            put_value(p, option, opt_option_get(option, &spec->options));
            first = false;
        }
    }
    put(p, first ? "" : ")");
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
    put(p, " + ");
    put(p, term->name);
    put(p, "(");
    for (size_t i = 0; i < OPT_TERM_OPTIONS && term->options[i].option != NULL; i++) {
        const struct opt_option *option = find(term->options[i].option);
        if (i >= last && !differs(spec, option)) {
            continue;
        }
        put(p, first ? "" : ", ");
        first = false;
        if (i >= term->positional) {
            put(p, term->options[i].key);
            put(p, "=");
        }
        put_value(p, option, opt_option_get(option, &spec->options));
    }
    put(p, ")");
}

static void put_number(struct printer *p, const char *name, double value)
{
    char text[OPT_NUMBER_TEXT];

    opt_number_print(value, text);
    put(p, name);
    put(p, text);
}

static void put_group(struct printer *p, const struct opt_group *group)
{
    char one[2] = "";

    put(p, " + tensors(\"");
    for (const char *c = group->pattern; *c != '\0'; c++) {
        one[0] = *c;
        put(p, *c == '"' || *c == '\\' ? "\\" : "");
        put(p, one);
    }
    put(p, "\"");
    if (group->has_weight_decay) {
        put_number(p, ", weight_decay=", group->weight_decay);
    }
    if (group->has_lr_scale) {
        put_number(p, ", lr_scale=", group->lr_scale);
    }
    put(p, group->layerwise_none ? ", layerwise=none)" : ")");
}

size_t opt_spec_print(const struct opt_spec *spec, char *out, size_t capacity)
{
    struct printer p = { .out = out, .capacity = capacity };
    size_t count;
    const struct opt_term *terms = opt_terms(&count);

    put_rule(&p, spec);
    for (size_t i = 0; i < count; i++) {
        put_term(&p, spec, &terms[i]);
    }
    for (size_t i = 0; i < spec->group_count; i++) {
        put_group(&p, &spec->groups[i]);
    }
    if (capacity > 0) {
        out[p.length < capacity ? p.length : capacity - 1] = '\0';
    }
    return p.length;
}
