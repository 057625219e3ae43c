/* deepspeed — steps of DeepSpeed's Adam for processors on request, for bench_optimd.
 *
 *   deepspeed PARAMETERS
 *
 * Compiled with a checkout of DeepSpeed: its kernel is included as it is, and called as
 * its Python interface calls it. Says "DeepSpeed VERSION", then answers each line
 * "THREADS" with the seconds of one step.
 */
#include "adam/cpu_adam_impl.cpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <omp.h>
#include <sys/mman.h>

/* Huge pages, and each part first touched by the thread that will work on it. */
static torch::Tensor tensor_new(std::size_t count, float scale)
{
    std::size_t bytes =
        (count * sizeof(float) + (2 << 20) - 1) & ~std::size_t{ (2 << 20) - 1 };
    auto *values = static_cast<float *>(std::aligned_alloc(2 << 20, bytes));
    if (values == nullptr) {
        return { nullptr, 0 };
    }
    madvise(values, bytes, MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < count; i++) {
        values[i] = scale * (static_cast<float>(i * 2654435761u % 2001) / 1000 - 1);
    }
    return { values, count };
}

int main(int count, char **words)
{
    std::size_t parameters = count > 1 ? std::strtoull(words[1], nullptr, 10) : 0;
    torch::Tensor weights = tensor_new(parameters, 0.1f);
    torch::Tensor gradients = tensor_new(parameters, 0.01f);
    torch::Tensor first = tensor_new(parameters, 0), second = tensor_new(parameters, 0);
    if (parameters == 0 || second.values == nullptr || first.values == nullptr ||
        gradients.values == nullptr || weights.values == nullptr) {
        std::puts("none");
        return 1;
    }
    create_adam_optimizer(0);
    std::puts("DeepSpeed " DEEPSPEED_VERSION);
    std::fflush(stdout);
    char line[32];
    for (std::size_t step = 1; std::fgets(line, sizeof line, stdin) != nullptr;
         step++) {
        omp_set_num_threads(std::atoi(line));
        auto begin = std::chrono::steady_clock::now();
        ds_adam_step(0, step, 1e-3f, 0.9f, 0.999f, 1e-8f, 0, true, weights, gradients,
                     first, second);
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        std::printf("%.9f\n", took.count());
        std::fflush(stdout);
    }
    return 0;
}
