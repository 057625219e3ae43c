/* kernels_adagrad — the loops of adagrad, rmsprop and adadelta for one instruction set.
 */
#include "common/optim/adagrad.h"
#include "common/optim/loops.h"

OPT_ADAGRAD_RULES(OPT_LOOP, OPT_LOOP)
