// float16 and bfloat16 as bits, one value at a time and without any instruction set: for packing, where nothing is hot.
#pragma once
#include <cstdint>
#include <cstring>

namespace shardline {
// Nameless: each instruction set's file gets its own copy, so that the linker never hands one's code to another.
namespace {

inline uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline float bf16_to_float(uint16_t bits) { return bits_float((uint32_t)bits << 16); }

// To nearest, ties to even; denormals to zero and NaN to a quiet NaN, as the processors' own conversion does.
inline uint16_t float_to_bf16(float value) {
    const uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits >> 16) | 0x40);
    if ((bits & 0x7f800000) == 0) return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
    if (exponent == 31) return bits_float(sign | 0x7f800000 | fraction << 13);
    if (exponent) return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 0x1p-24f;  // a denormal half, exact in float32
    return sign ? -tiny : tiny;
}

// To nearest, ties to even.
inline uint16_t float_to_half(float value) {
    const uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7c00);  // 65,536 and more
    if (magnitude < 0x38800000) {                                   // below 2^-14: a denormal half
        // Adding 0.5 leaves 24 bits behind the point: float addition rounds as wanted.
        return (uint16_t)(sign | (float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000));
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000) >> 13));
}

}  // namespace
}  // namespace shardline
