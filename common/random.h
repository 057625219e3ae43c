/* random — numbers that nobody else has: identities of sessions and of models.
 *
 * They come from the kernel, so those of containers that are alike, of forked processes
 * and of machines that start at the same moment differ too. Any thread.
 */
#ifndef OPTIMD_COMMON_RANDOM_H
#define OPTIMD_COMMON_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

/* A number that is not 0. False: the kernel gives none. */
bool opt_random_identity(uint64_t *out);

#endif
