/* float_bits — fp32, bf16 and fp16 as integers.
 *
 * A finite value stays finite on its way to 16 bits: one beyond their range is held at
 * the largest that they have. Written with selects instead of branches, so that loops
 * around these functions vectorise on every instruction set. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_FLOAT_BITS_H
#define OPTIMD_COMMON_OPTIM_FLOAT_BITS_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Bits of fp32's infinity, and of the least values that rounding to the nearest would
 * make infinite: half a place above the largest of bf16 and of fp16 (65520). */
#define FLOAT_INFINITY 0x7f800000u
#define BF16_BEYOND 0x7f7f8000u
#define FP16_BEYOND 0x477ff000u

/* Whether a value is finite, and from these bits on. */
static inline uint32_t float_is_beyond(float value, uint32_t beyond)
{
    return (float_to_bits(value) & 0x7fffffffu) - beyond < FLOAT_INFINITY - beyond;
}

static inline float bf16_to_float(uint16_t half)
{
    return float_from_bits((uint32_t)half << 16);
}

/* Nearest even by a carry out of the dropped half; NaN keeps its upper bits, and one
 * more so that it does not turn into an infinity. */
static inline uint16_t bf16_from_float(float value)
{
    uint32_t bits = float_to_bits(value);
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    uint32_t nan = bits | 0x400000u;
    uint32_t held = (bits & 0x80000000u) | 0x7f7f0000u;
    rounded = float_is_beyond(value, BF16_BEYOND) ? held : rounded;
    return (uint16_t)(((bits & 0x7fffffffu) > FLOAT_INFINITY ? nan : rounded) >> 16);
}

/* The exponent's bias differs by 112. Infinity and NaN need it twice; a subnormal is
 * placed below 2^-14 and the implicit one taken off again, exactly. */
static inline float fp16_to_float(uint16_t half)
{
    uint32_t magnitude = half & 0x7fffu;
    uint32_t shifted = magnitude << 13;
    uint32_t normal = shifted + (112u << 23) + (magnitude >= 0x7c00u ? 112u << 23 : 0u);
    float subnormal = float_from_bits(shifted + (113u << 23)) - 0x1p-14f;
    uint32_t bits = magnitude < 0x400u ? float_to_bits(subnormal) : normal;
    return float_from_bits(bits | (uint32_t)(half & 0x8000u) << 16);
}

/* Below 2^-14 adding one half lets the processor round at the last place of a
 * subnormal; above, nearest even by carry, up to the largest. */
static inline uint16_t fp16_from_float(float value)
{
    uint32_t bits = float_to_bits(value);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t rebased = magnitude - (112u << 23);
    uint32_t normal = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
    uint32_t subnormal =
        float_to_bits(float_from_bits(magnitude) + 0.5f) - float_to_bits(0.5f);
    uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= FP16_BEYOND ? 0x7bffu : half;
    half = magnitude == FLOAT_INFINITY ? 0x7c00u : half;
    half = magnitude > FLOAT_INFINITY ? nan : half;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

#endif
