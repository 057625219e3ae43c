/* loops — how a family of rules becomes loops of the instruction set that is compiled.
 *
 * Included by kernels*.c, which are compiled with OPT_KERNEL_ISA set to its name.
 */
#ifndef OPTIMD_COMMON_OPTIM_LOOPS_H
#define OPTIMD_COMMON_OPTIM_LOOPS_H

#include "common/optim/kernels.h"
#include "common/optim/shell.h"

/* The one place where a name is built: each instruction set has its own. */
#define OPT_JOIN_(name, isa) name##_##isa
#define OPT_JOIN(name, isa) OPT_JOIN_(name, isa)
#define OPT_OF_ISA(name) OPT_JOIN(name, OPT_KERNEL_ISA)

#define OPT_LOOP(name, NAME, slots, goal)                                              \
    void OPT_OF_ISA(opt_loop_##name)(const struct opt_slice *s);                       \
    void OPT_OF_ISA(opt_loop_##name)(const struct opt_slice *s)                        \
    {                                                                                  \
        shell_##goal(s, slots, name##_element);                                        \
    }

#endif
