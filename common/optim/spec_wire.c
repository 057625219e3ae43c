/* spec_wire — specifications from and to the parts of a message; see spec.h. Any
 * thread.
 */
#include "common/optim/compose.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"

enum opt_status opt_spec_from_wire(const struct opt_wire_spec *wire,
                                   struct opt_spec *out, struct opt_error *error)
{
    struct opt_composition composition;
    enum opt_status status;

    if (wire->expression[0] != '\0') {
        if (wire->rule[0] != '\0' || wire->option_count > 0 || wire->group_count > 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "a specification is an expression or has parts, not both");
        }
        return opt_spec_parse(wire->expression, out, error);
    }
    status = opt_compose_begin(&composition, wire->rule, error);
    if (status != OPT_OK) {
        return status;
    }
    for (size_t i = 0; status == OPT_OK && i < wire->option_count; i++) {
        status = opt_compose_option(&composition, &wire->options[i], error);
    }
    for (size_t i = 0; status == OPT_OK && i < wire->group_count; i++) {
        status = opt_spec_group(&composition.spec, &wire->groups[i], error);
    }
    return opt_compose_end(&composition, status, out, error);
}

static struct opt_wire_option wire_option(const struct opt_option *option, double value)
{
    struct opt_wire_option wire = { .name = option->name };

    if (option->kind == OPT_KIND_WORD) {
        wire.kind = OPT_VALUE_WORD;
        wire.word = option->words[(int)value];
    } else if (option->kind == OPT_KIND_FLAG) {
        wire.kind = OPT_VALUE_FLAG;
        wire.flag = value != 0.0;
    } else {
        wire.kind = OPT_VALUE_NUMBER;
        wire.number = value;
    }
    return wire;
}

static void add_group(const struct opt_group *group, struct opt_spec_parts *parts)
{
    struct opt_wire_option *options = parts->group_options[parts->wire.group_count];
    size_t count = 0;

    if (group->has_weight_decay) {
        options[count++] = (struct opt_wire_option){ .name = "weight_decay",
                                                     .number = group->weight_decay };
    }
    if (group->has_lr_scale) {
        options[count++] =
            (struct opt_wire_option){ .name = "lr_scale", .number = group->lr_scale };
    }
    if (group->layerwise_none) {
        options[count++] = (struct opt_wire_option){ .name = "layerwise",
                                                     .kind = OPT_VALUE_WORD,
                                                     .word = "none" };
    }
    if (group->may_miss) {
        options[count++] = (struct opt_wire_option){ .name = "missing",
                                                     .kind = OPT_VALUE_WORD,
                                                     .word = "ok" };
    }
    parts->groups[parts->wire.group_count++] =
        (struct opt_wire_group){ group->pattern, options, count };
}

void opt_spec_to_wire(const struct opt_spec *spec, struct opt_spec_parts *out)
{
    size_t count;
    const struct opt_option *table = opt_options_table(&count);

    out->wire = (struct opt_wire_spec){
        .expression = "",
        .rule = spec->rule->name,
        .options = out->options,
        .groups = out->groups,
    };
    for (size_t i = 0; i < count; i++) {
        double value = opt_option_get(&table[i], &spec->options);
        if (opt_option_applies(&table[i], spec->rule) &&
            value != opt_option_default(&table[i], spec->rule)) {
            out->options[out->wire.option_count++] = wire_option(&table[i], value);
        }
    }
    for (size_t i = 0; i < spec->group_count; i++) {
        add_group(&spec->groups[i], out);
    }
}
