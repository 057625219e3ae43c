/* memory — see memory.h. */
#include "tests/bench/memory.h"

#include <sys/mman.h>

#include "common/optim/update.h"
#include "tests/bench/compare.h"

enum { PIECE = 1 << 16 }; /* elements handed to a thread at a time */

void *memory_map(size_t size)
{
    void *base =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        return NULL;
    }
    madvise(base, size, MADV_HUGEPAGE);
    return base;
}

void memory_unmap(void *base, size_t size)
{
    if (base != NULL) {
        munmap(base, size);
    }
}

static void fill(float *values, size_t from, size_t to, uint32_t seed, float scale)
{
    for (size_t i = from; i < to; i++) {
        uint32_t bits = ((uint32_t)i + seed) * 2654435761u;
        bits ^= bits >> 15;
        bits *= 2246822519u;
        values[i] = scale * ((float)(int32_t)bits / 2147483648.0f);
    }
}

void memory_fill(float *values, size_t n, uint32_t seed, float scale, int threads)
{
    size_t pieces = (n + PIECE - 1) / PIECE;
    if (threads == 1) { /* also right in a forked child, which has no team */
        fill(values, 0, n, seed, scale);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < pieces; i++) {
        size_t from = i * PIECE, to = n - from < PIECE ? n : from + PIECE;
        fill(values, from, to, seed, scale);
    }
}

void memory_set(float *values, size_t n, float value, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < n; i++) {
        values[i] = value;
    }
}

__attribute__((always_inline)) static inline void triad_loop(float *restrict a,
                                                             const float *restrict b,
                                                             const float *restrict c,
                                                             size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        a[i] = b[i] + 3.0f * c[i];
    }
}

typedef void triad_piece(float *a, const float *b, const float *c, size_t n);

static void triad_baseline(float *a, const float *b, const float *c, size_t n)
{
    triad_loop(a, b, c, n);
}

#ifdef __x86_64__
__attribute__((target("arch=x86-64-v3"))) static void triad_v3(float *a, const float *b,
                                                               const float *c, size_t n)
{
    triad_loop(a, b, c, n);
}

__attribute__((target("arch=x86-64-v4"))) static void triad_v4(float *a, const float *b,
                                                               const float *c, size_t n)
{
    triad_loop(a, b, c, n);
}
#endif

/* The triad for the instruction set that the kernels use. */
static triad_piece *triad_chosen(void)
{
    static triad_piece *const table[OPT_ISA_COUNT] = {
        [OPT_ISA_BASELINE] = triad_baseline,
#ifdef __x86_64__
        [OPT_ISA_V3] = triad_v3,
        [OPT_ISA_V4] = triad_v4,
#endif
    };
    return table[opt_isa_current()];
}

bool triad_init(struct triad *triad, size_t n, int threads)
{
    *triad = (struct triad){ .n = n, .threads = threads, .passes = 1 };
    triad->a = memory_map(n * sizeof(float));
    triad->b = memory_map(n * sizeof(float));
    triad->c = memory_map(n * sizeof(float));
    if (triad->a == NULL || triad->b == NULL || triad->c == NULL) {
        return false;
    }
    memory_set(triad->a, n, 0.0f, threads);
    memory_fill(triad->b, n, 3, 1.0f, threads);
    memory_fill(triad->c, n, 5, 1.0f, threads);
    return true;
}

void triad_fini(struct triad *triad)
{
    memory_unmap(triad->a, triad->n * sizeof(float));
    memory_unmap(triad->b, triad->n * sizeof(float));
    memory_unmap(triad->c, triad->n * sizeof(float));
}

bool triad_run(void *context, double *values, char problem[256])
{
    (void)problem;
    const struct triad *triad = context;
    triad_piece *piece = triad_chosen();
    size_t n = triad->n, pieces = (n + PIECE - 1) / PIECE;
    double begin = seconds_now();
    for (int pass = 0; pass < triad->passes; pass++) {
#pragma omp parallel for schedule(static) num_threads(triad->threads)
        for (size_t i = 0; i < pieces; i++) {
            size_t from = i * PIECE, count = n - from < PIECE ? n - from : PIECE;
            piece(triad->a + from, triad->b + from, triad->c + from, count);
        }
    }
    double seconds = seconds_now() - begin;
    values[0] = TRIAD_BYTES * (double)n * triad->passes / seconds / 1e9;
    return true;
}
