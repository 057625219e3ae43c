/* norm — sums of squares whose bits depend on nothing but the data.
 *
 * Within a block element i belongs to lane i % OPT_LANES, every lane is summed in
 * order, and the lanes are folded here as a fixed tree; blocks are added in block order
 * by the caller's report. So neither vector width nor threads show in the result. Any
 * thread.
 */
#include "common/optim/passes.h"

double opt_norm_fold(const double lanes[OPT_LANES])
{
    double sum[OPT_LANES];

    for (size_t l = 0; l < OPT_LANES; l++) {
        sum[l] = lanes[l];
    }
    for (size_t width = OPT_LANES / 2; width > 0; width /= 2) {
        for (size_t l = 0; l < width; l++) {
            sum[l] += sum[l + width];
        }
    }
    return sum[0];
}
