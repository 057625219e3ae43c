/* kernels_amsgrad — the loops of amsgrad, radam, adabound and amsbound for one
 * instruction set. */
#include "common/optim/adam.h"
#include "common/optim/loops.h"

OPT_AMSGRAD_RULES(OPT_LOOP, OPT_LOOP)
