/* random — see random.h. */
#include "common/random.h"

#include <sys/random.h>
#include <sys/types.h>

bool opt_random_identity(uint64_t *out)
{
    uint64_t identity;
    do {
        if (getrandom(&identity, sizeof(identity), 0) != (ssize_t)sizeof(identity)) {
            return false;
        }
    } while (identity == 0);
    *out = identity;
    return true;
}
