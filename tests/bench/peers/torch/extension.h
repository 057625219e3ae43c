/* extension — what DeepSpeed's cpu_adam asks of PyTorch, as far as a step of floats
 * does.
 *
 * DeepSpeed's sources include <torch/extension.h>. PyTorch's own would bring its whole
 * library into a program that measures one loop, so this one stands in: a tensor is a
 * borrowed array of floats. The narrow types exist because the sources name them.
 */
#ifndef OPTIMD_TESTS_BENCH_PEERS_TORCH_EXTENSION_H
#define OPTIMD_TESTS_BENCH_PEERS_TORCH_EXTENSION_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include <immintrin.h>

namespace c10
{
enum class ScalarType { Float, Half, BFloat16 };

struct Half {
    std::uint16_t bits;
    Half(float value) : bits(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))
    {
    }
    operator float() const
    {
        return _cvtsh_ss(bits);
    }
};

struct BFloat16 {
    std::uint16_t bits;
    BFloat16(float value)
    {
        std::uint32_t wide;
        std::memcpy(&wide, &value, sizeof wide);
        bits = static_cast<std::uint16_t>((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
    }
    operator float() const
    {
        std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
        float value;
        std::memcpy(&value, &wide, sizeof value);
        return value;
    }
};

template <typename T> struct CppTypeToScalarType;
template <> struct CppTypeToScalarType<float> {
    constexpr operator ScalarType() const
    {
        return ScalarType::Float;
    }
};
template <> struct CppTypeToScalarType<Half> {
    constexpr operator ScalarType() const
    {
        return ScalarType::Half;
    }
};
template <> struct CppTypeToScalarType<BFloat16> {
    constexpr operator ScalarType() const
    {
        return ScalarType::BFloat16;
    }
};

inline std::string toString(ScalarType type)
{
    static const char *const names[] = { "Float", "Half", "BFloat16" };
    return names[static_cast<int>(type)];
}
} // namespace c10

namespace at
{
inline c10::ScalarType typeMetaToScalarType(c10::ScalarType type)
{
    return type;
}
} // namespace at

namespace torch
{
struct TensorOptions {
    c10::ScalarType dtype() const
    {
        return c10::ScalarType::Float;
    }
};

struct Tensor {
    float *values;
    std::size_t count;
    Tensor contiguous() const
    {
        return *this;
    }
    TensorOptions options() const
    {
        return {};
    }
    void *data_ptr() const
    {
        return values;
    }
    std::size_t numel() const
    {
        return count;
    }
};
} // namespace torch

#endif
