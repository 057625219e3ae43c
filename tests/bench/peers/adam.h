/* adam — optimd's own Adam, for a peer that has none.
 *
 * Only the transport shall differ between optimd and such a peer, so its server calls
 * the kernel that the daemon calls. One thread calls.
 */
#ifndef OPTIMD_TESTS_BENCH_PEERS_ADAM_H
#define OPTIMD_TESTS_BENCH_PEERS_ADAM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ADAM_WORKERS_MAX = 8 };

struct adam;

/* A model of equal tensors, updated by so many OpenMP threads. NULL if there is no
 * memory. */
struct adam *adam_new(size_t tensors, size_t elements, int threads);

/* A tensor's weights, borrowed. */
float *adam_weights(struct adam *adam, size_t tensor);

/* Update a tensor by the mean of the workers' gradients. */
void adam_step(struct adam *adam, size_t tensor, const float *const *gradients,
               size_t workers);

#ifdef __cplusplus
}
#endif

#endif
