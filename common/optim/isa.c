/* isa — which of the compiled instruction sets this process uses.
 *
 * Asked of the processor at the first use and kept; every answer computes the same
 * bits, so two threads that ask at once do no harm. Any thread.
 */
#include <stdatomic.h>

#include "common/optim/kernels.h"
#include "common/optim/update.h"

static const struct {
    const char *name;
    const struct opt_kernels *kernels; /* NULL: not compiled for this machine */
} sets[OPT_ISA_COUNT] = {
    [OPT_ISA_BASELINE] = { "baseline", &opt_kernels_baseline },
#ifdef __x86_64__
    [OPT_ISA_V3] = { "x86-64-v3", &opt_kernels_v3 },
    [OPT_ISA_V4] = { "x86-64-v4", &opt_kernels_v4 },
#else
    [OPT_ISA_V3] = { "x86-64-v3", NULL },
    [OPT_ISA_V4] = { "x86-64-v4", NULL },
#endif
};

enum { NOT_CHOSEN = -1 };
static atomic_int chosen = NOT_CHOSEN;

const char *opt_isa_name(enum opt_isa isa)
{
    return (unsigned)isa < OPT_ISA_COUNT ? sets[isa].name : "unknown";
}

bool opt_isa_supported(enum opt_isa isa)
{
    if ((unsigned)isa >= OPT_ISA_COUNT || sets[isa].kernels == NULL) {
        return false;
    }
#ifdef __x86_64__
    /* Every processor with these has the rest of its level. */
    bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (isa == OPT_ISA_V3) {
        return v3;
    }
    if (isa == OPT_ISA_V4) {
        return v3 && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    return true;
}

enum opt_isa opt_isa_current(void)
{
    int isa = atomic_load_explicit(&chosen, memory_order_relaxed);

    if (isa == NOT_CHOSEN) {
        for (isa = OPT_ISA_COUNT - 1; !opt_isa_supported((enum opt_isa)isa); isa--) {
        }
        atomic_store_explicit(&chosen, isa, memory_order_relaxed);
    }
    return (enum opt_isa)isa;
}

bool opt_isa_force(enum opt_isa isa)
{
    if (!opt_isa_supported(isa)) {
        return false;
    }
    atomic_store_explicit(&chosen, (int)isa, memory_order_relaxed);
    return true;
}

const struct opt_kernels *opt_kernels(void)
{
    return sets[opt_isa_current()].kernels;
}
