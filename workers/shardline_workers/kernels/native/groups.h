// 32 weights of one output on their way into a tile: how sources store them, how they are quantised, where they go.
//
// The quantisations are those of ggml's reference (quantize_row_q4_0_ref and its siblings in ggml-quants.c), so that a
// matrix packed from float32 has the same weights as a file that ggml quantised from it.
#pragma once
#include <cmath>

#include "half.h"
#include "k_quants.h"
#include "layout.h"

namespace shardline {
namespace {

struct Group {
    uint8_t q[GROUP];
    uint16_t scale, minimum;  // float16
};

// ---- sources ----

constexpr bool is_blocked(int source) { return source >= SL_FROM_Q4_0; }

constexpr int source_block_inputs(int source) { return source >= SL_FROM_Q2_K ? 256 : GROUP; }

constexpr int64_t source_block_bytes(int source) {  // of so many inputs
    constexpr int64_t bytes[SL_SOURCE_COUNT] = {128, 64, 64, 18, 20, 34, 22, 24, 84, 110, 144, 176, 210};
    return bytes[source];
}

inline uint16_t read_half(const uint8_t *bytes) { return (uint16_t)(bytes[0] | bytes[1] << 8); }

// Low nibbles are inputs 0 … 15, high ones 16 … 31.
inline void read_nibbles(const uint8_t *bytes, uint8_t *q) {
    for (int i = 0; i < 16; i++) {
        q[i] = bytes[i] & 15;
        q[i + 16] = bytes[i] >> 4;
    }
}

inline void read_floats(int source, const uint8_t *bytes, int count, float *out) {
    for (int i = 0; i < count; i++) {
        if (source == SL_FROM_F32) memcpy(out + i, bytes + 4 * i, 4);
        else if (source == SL_FROM_F16) out[i] = half_to_float(read_half(bytes + 2 * i));
        else out[i] = bf16_to_float(read_half(bytes + 2 * i));
    }
}

// Bit i of the four bytes is the fifth bit of q[i].
inline void read_fives(const uint8_t *bytes, uint8_t *q) {
    read_nibbles(bytes + 4, q);
    for (int i = 0; i < GROUP; i++) q[i] = (uint8_t)(q[i] | (bytes[i / 8] >> i % 8 & 1) << 4);
}

// Quants of a block of 32, less what lies in their middle: weight = scale · q + minimum.
inline float read_quants(int source, const uint8_t *bytes, int8_t *q) {
    uint8_t raw[GROUP];
    const bool has_minimum = source == SL_FROM_Q4_1 || source == SL_FROM_Q5_1;
    const uint8_t *quants = bytes + (has_minimum ? 4 : 2);
    if (source == SL_FROM_Q8_0) memcpy(raw, quants, GROUP);
    else if (source == SL_FROM_Q5_0 || source == SL_FROM_Q5_1) read_fives(quants, raw);
    else read_nibbles(quants, raw);
    const int middle = source == SL_FROM_Q4_0 ? 8 : source == SL_FROM_Q5_0 ? 16 : 0;
    for (int i = 0; i < GROUP; i++) q[i] = (int8_t)(raw[i] - middle);
    return has_minimum ? half_to_float(read_half(bytes + 2)) : 0;
}

// Group `part` of a block as numbers.
inline void read_blocked(int source, const uint8_t *bytes, int part, float *out) {
    if (source_block_inputs(source) > GROUP) return weights_of(read_k_group(source, bytes, part), out);
    int8_t q[GROUP];
    const float minimum = read_quants(source, bytes, q), scale = half_to_float(read_half(bytes));
    for (int i = 0; i < GROUP; i++) out[i] = scale * (float)q[i] + minimum;
}

// ---- taking quants over ----

// Onto the grid of the half with the larger scale, `steps` of it for one of the file's: that half is exact. False where
// rounding all 32 to eight bits has the smaller error: the grid is coarse beside the largest weight that is there, or
// ends before a weight of the other half (whose scale is as large, of the other sign).
inline bool take_halves(const KGroup &from, int steps, Group &group) {
    float values[GROUP], largest = 0;
    weights_of(from, values);
    for (int i = 0; i < GROUP; i++) largest = std::fmax(largest, std::fabs(values[i]));
    const int larger = std::fabs(from.scale[1]) > std::fabs(from.scale[0]);
    group.scale = float_to_half(from.scale[larger] / (float)steps);
    const float scale = half_to_float(group.scale), inverse = scale != 0 ? 1 / scale : 0;
    if (!(std::fabs(scale) <= 1.41f / 127 * largest)) return false;
    for (int i = 0; i < GROUP; i++) {
        const bool keeps = i / HALF_GROUP == larger;
        const float q = keeps ? (float)(from.q[i] * steps) : std::round(values[i] * inverse);
        if (!(q >= -128 && q <= 127)) return false;
        group.q[i] = (uint8_t)((int)q + 128);
    }
    return true;
}

inline bool take_k_group(int source, int format, const uint8_t *bytes, int part, Group &group) {
    const KGroup from = read_k_group(source, bytes, part);
    if (source == SL_FROM_Q4_K && format == SL_W4_MIN) {
        group.scale = float_to_half(from.scale[0]);
        group.minimum = float_to_half(from.minimum[0]);
        for (int i = 0; i < GROUP; i++) group.q[i] = (uint8_t)from.q[i];
        return true;
    }
    if (format != SL_W8) return false;
    if (source == SL_FROM_Q6_K) return take_halves(from, 4, group);
    return source == SL_FROM_Q3_K && take_halves(from, 32, group);
}

// Takes a group over with its quants. False where the format has no place for them.
inline bool take_quants(int source, int format, const uint8_t *bytes, int part, Group &group) {
    if (source_block_inputs(source) > GROUP) return take_k_group(source, format, bytes, part, group);
    int8_t q[GROUP];
    read_quants(source, bytes, q);
    group.scale = read_half(bytes);
    if (format == SL_W8 && (source == SL_FROM_Q8_0 || source == SL_FROM_Q5_0)) {
        for (int i = 0; i < GROUP; i++) group.q[i] = (uint8_t)(q[i] + 128);
        return true;
    }
    if (source == SL_FROM_Q4_0 && (format == SL_W4 || format == SL_W4_MIN)) {
        for (int i = 0; i < GROUP; i++) group.q[i] = (uint8_t)(q[i] + 8);
        group.minimum = float_to_half(8 * half_to_float(group.scale));
        return true;
    }
    if (source == SL_FROM_Q4_1 && format == SL_W4_MIN) {
        for (int i = 0; i < GROUP; i++) group.q[i] = (uint8_t)q[i];
        group.minimum = read_half(bytes + 2) ^ 0x8000;
        return true;
    }
    return false;
}

// ---- quantisation of float32 ----

inline uint8_t at_most_15(float value) { return value >= 15 ? 15 : value > 0 ? (uint8_t)value : 0; }

inline void quantise_w8(const float *values, Group &group) {
    float largest = 0, broken = 0;  // NaN once a value is none: then the whole group is, and passes for no number
    for (int i = 0; i < GROUP; i++) {
        largest = std::fmax(largest, std::fabs(values[i]));
        broken += values[i] * 0;
    }
    const float scale = largest / 127 + broken, inverse = scale > 0 ? 1 / scale : 0;
    group.scale = float_to_half(scale);
    for (int i = 0; i < GROUP; i++)
        group.q[i] = (uint8_t)((int)std::fmin(std::fmax(std::round(values[i] * inverse), -128), 127) + 128);
}

inline void quantise_w4(const float *values, Group &group) {
    float largest = 0;  // with its sign, which then falls on q = 0
    for (int i = 0; i < GROUP; i++) {
        if (std::fabs(values[i]) > std::fabs(largest)) largest = values[i];
    }
    const float scale = largest / -8, inverse = scale != 0 ? 1 / scale : 0;
    group.scale = float_to_half(scale);
    for (int i = 0; i < GROUP; i++) group.q[i] = at_most_15(values[i] * inverse + 8.5f);
}

inline void quantise_w4_min(const float *values, Group &group) {
    float low = values[0], high = values[0];
    for (int i = 1; i < GROUP; i++) {
        low = std::fmin(low, values[i]);
        high = std::fmax(high, values[i]);
    }
    const float scale = (high - low) / 15, inverse = scale > 0 ? 1 / scale : 0;
    group.scale = float_to_half(scale);
    group.minimum = float_to_half(-low);
    for (int i = 0; i < GROUP; i++) group.q[i] = at_most_15((values[i] - low) * inverse + 0.5f);
}

inline void quantise(int format, const float *values, Group &group) {
    if (format == SL_W8) quantise_w8(values, group);
    else if (format == SL_W4) quantise_w4(values, group);
    else quantise_w4_min(values, group);
}

// ---- places in a tile's block ----

inline void put_half(uint8_t *bytes, uint16_t half) { memcpy(bytes, &half, 2); }

inline void put_group(int format, uint8_t *block, int output, const Group &group) {
    const uint8_t *q = group.q;
    if (format == SL_W8) {
        for (int j = 0; j < 8; j++) memcpy(block + j * 64 + output * 4, q + j * 4, 4);
    } else {
        for (int j = 0; j < 4; j++) {
            for (int i = 0; i < 4; i++)
                block[j * 64 + output * 4 + i] = (uint8_t)(q[j * 8 + i] | q[j * 8 + 4 + i] << 4);
        }
    }
    uint8_t *scales = block + quant_bytes(format) + output * 2;
    put_half(scales, group.scale);
    if (format == SL_W4_MIN) put_half(scales + 2 * TILE, group.minimum);
}

inline void put_bf16(uint8_t *block, int output, const float *values) {
    for (int i = 0; i < GROUP; i++) put_half(block + i / 2 * 64 + output * 4 + i % 2 * 2, float_to_bf16(values[i]));
}

inline int quant_at(int format, const uint8_t *block, int output, int input) {
    if (format == SL_W8) return block[input / 4 * 64 + output * 4 + input % 4] - 128;
    const int byte = block[input / 8 * 64 + output * 4 + input % 4], q = input % 8 < 4 ? byte & 15 : byte >> 4;
    return format == SL_W4 ? q - 8 : q;
}

inline float weight_at(int format, const uint8_t *block, int output, int input) {
    if (format == SL_BF16) return bf16_to_float(read_half(block + input / 2 * 64 + output * 4 + input % 2 * 2));
    const uint8_t *scales = block + quant_bytes(format) + output * 2;
    const float product = half_to_float(read_half(scales)) * (float)quant_at(format, block, output, input);
    return format == SL_W4_MIN ? product - half_to_float(read_half(scales + 2 * TILE)) : product;
}

}  // namespace
}  // namespace shardline
