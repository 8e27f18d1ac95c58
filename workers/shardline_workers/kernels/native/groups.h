// 32 weights of one output on their way into a tile: how sources store them, how they are quantised, where they go.
//
// The quantisations are those of ggml's reference (quantize_row_q4_0_ref and its siblings in ggml-quants.c), so that a
// matrix packed from float32 has the same weights as a file that ggml quantised from it.
#pragma once
#include <cmath>

#include "half.h"
#include "layout.h"

namespace shardline {
namespace {

struct Group {
    uint8_t q[GROUP];
    uint16_t scale, minimum;  // float16
};

// ---- sources ----

constexpr int64_t source_block_bytes(int source) {  // of 32 inputs
    return source == SL_FROM_F32                             ? 128
           : source == SL_FROM_F16 || source == SL_FROM_BF16 ? 64
           : source == SL_FROM_Q4_0                          ? 18
           : source == SL_FROM_Q4_1                          ? 20
                                                             : 34;
}

constexpr bool is_blocked(int source) { return source >= SL_FROM_Q4_0; }

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

inline void read_blocked(int source, const uint8_t *bytes, float *out) {
    const float scale = half_to_float(read_half(bytes));
    uint8_t q[GROUP];
    if (source == SL_FROM_Q8_0) {
        for (int i = 0; i < GROUP; i++) out[i] = scale * (float)(int8_t)bytes[2 + i];
        return;
    }
    read_nibbles(bytes + (source == SL_FROM_Q4_0 ? 2 : 4), q);
    const float minimum = source == SL_FROM_Q4_0 ? 0 : half_to_float(read_half(bytes + 2));
    for (int i = 0; i < GROUP; i++) out[i] = scale * (float)(q[i] - (source == SL_FROM_Q4_0 ? 8 : 0)) + minimum;
}

// Takes a block over as it is. False where the format cannot hold it exactly.
inline bool take_exactly(int source, int format, const uint8_t *bytes, Group &group) {
    group.scale = read_half(bytes);
    if (source == SL_FROM_Q8_0 && format == SL_W8) {
        for (int i = 0; i < GROUP; i++) group.q[i] = (uint8_t)(bytes[2 + i] ^ 0x80);  // -128 … 127 → 0 … 255
        return true;
    }
    if (source == SL_FROM_Q4_0 && (format == SL_W4 || format == SL_W4_MIN)) {
        read_nibbles(bytes + 2, group.q);
        group.minimum = float_to_half(8 * half_to_float(group.scale));
        return true;
    }
    if (source == SL_FROM_Q4_1 && format == SL_W4_MIN) {
        read_nibbles(bytes + 4, group.q);
        group.minimum = read_half(bytes + 2) ^ 0x8000;
        return true;
    }
    return false;
}

// ---- quantisation of float32 ----

inline uint8_t at_most_15(float value) { return value >= 15 ? 15 : value > 0 ? (uint8_t)value : 0; }

inline void quantise_w8(const float *values, Group &group) {
    float largest = 0;
    for (int i = 0; i < GROUP; i++) largest = std::fmax(largest, std::fabs(values[i]));
    const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
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
