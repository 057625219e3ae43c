/* memory — large arrays on huge pages, and the triad that says how fast they can be.
 *
 * The triad is STREAM's, a[i] = b[i] + s * c[i], compiled for the same instruction set
 * as the kernels and with ordinary stores, so that what it moves is 16 bytes an
 * element: two reads, one read for ownership, one write. Main thread; the triad uses
 * OpenMP.
 */
#ifndef OPTIMD_TESTS_BENCH_MEMORY_H
#define OPTIMD_TESTS_BENCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRIAD_BYTES = 16 };

/* size bytes on huge pages where there are any; NULL if there is no memory. Nothing is
 * touched. Freed by memory_unmap with the same size. */
void *memory_map(size_t size);
void memory_unmap(void *base, size_t size);

/* Fill n floats with values spread evenly over -scale..scale, the same for the same
 * seed; each thread of a team touches the part that it will compute on. */
void memory_fill(float *values, size_t n, uint32_t seed, float scale, int threads);
/* And with one value. */
void memory_set(float *values, size_t n, float value, int threads);

struct triad {
    float *a, *b, *c;
    size_t n;
    int threads;
    int passes; /* over the arrays in one run */
};

/* Arrays of n floats, each part touched by the thread of the team that will use it.
 * False if there is no memory; fini takes it all the same. */
bool triad_init(struct triad *triad, size_t n, int threads);
void triad_fini(struct triad *triad);

/* GB/s of true traffic. A compare_side. */
bool triad_run(void *triad, double *values, char problem[256]);

#endif
