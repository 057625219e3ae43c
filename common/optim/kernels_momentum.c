/* kernels_momentum — the loops of sgd, momentum and nag for one instruction set. */
#include "common/optim/loops.h"
#include "common/optim/momentum.h"

OPT_MOMENTUM_RULES(OPT_LOOP, OPT_LOOP)
