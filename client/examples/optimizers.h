/* optimizers — the names of all rules and presets that there are.
 *
 * For `make demo-all` and `make gallery`, which show every one of them: a rule that is
 * added to the registry is shown without being named here. No state; any thread.
 */
#ifndef OPTIMD_EXAMPLES_OPTIMIZERS_H
#define OPTIMD_EXAMPLES_OPTIMIZERS_H

#include <stddef.h>

size_t optimizers_count(void);

/* The name of number i of them: rules first, then presets, each in the registry's
 * order. */
const char *optimizers_name(size_t i);

#endif
