/* demo_presets — which learning rate each optimizer learns the digits with.
 *
 * One table of rates, for `make demo-all`; no state, any thread.
 */
#ifndef OPTIMD_EXAMPLES_DEMO_PRESETS_H
#define OPTIMD_EXAMPLES_DEMO_PRESETS_H

#include <stddef.h>

enum {
    DEMO_EPOCHS = 30,
    DEMO_STEPS = 330, /* 11 mini-batches of 128 images an epoch */
    DEMO_SPECIFICATION_MAX = 64
};

struct demo_preset {
    const char *name; /* of a rule or preset */
    double lr;
    const char *why; /* this rate; NULL: the table has none, and this is a guess */
};

/* Of each name there is (optimizers.h). */
struct demo_preset demo_preset(const char *name);

/* The rates of the table; *count. */
const struct demo_preset *demo_presets_table(size_t *count);

/* "adam(lr=0.01) + cosine(330)". */
void demo_preset_print(const struct demo_preset *preset,
                       char out[DEMO_SPECIFICATION_MAX]);

#endif
