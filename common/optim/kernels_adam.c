/* kernels_adam — the loops of adam, adamax and nadam for one instruction set. */
#include "common/optim/adam.h"
#include "common/optim/loops.h"

OPT_ADAM_RULES(OPT_LOOP, OPT_LOOP)
