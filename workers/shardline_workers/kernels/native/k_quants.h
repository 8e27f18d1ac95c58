// ggml's K-quants: blocks of 256 inputs, each cut into eight groups of 32. Layouts are those of ggml-common.h; the
// Python side's k_quants.py draws them.
#pragma once
#include "half.h"
#include "layout.h"

namespace shardline {
namespace {

constexpr int HALF_GROUP = GROUP / 2;

// 32 inputs of one output as the file has them: weight = scale[h] · q - minimum[h], h being the half that i lies in.
struct KGroup {
    int8_t q[GROUP];
    float scale[2], minimum[2];
};

inline float block_half(const uint8_t *bytes) { return half_to_float((uint16_t)(bytes[0] | bytes[1] << 8)); }

// The six-bit scale or minimum of a group of Q4_K and Q5_K: groups 0 … 3 have a byte's lower six bits; the two above
// them are the upper ones of groups 4 … 7, whose lower four are a nibble of the last four bytes.
inline int six_bits(const uint8_t *own, const uint8_t *rest, int group, int nibble) {
    if (group < 4) return own[group] & 63;
    return (rest[group - 4] >> nibble & 15) | (own[group - 4] >> 6 << 4);
}

inline void read_q4_k_scales(const uint8_t *block, int part, KGroup &group) {
    const uint8_t *packed = block + 4;
    group.scale[0] = group.scale[1] = block_half(block) * (float)six_bits(packed, packed + 8, part, 0);
    group.minimum[0] = group.minimum[1] = block_half(block + 2) * (float)six_bits(packed + 4, packed + 8, part, 4);
}

inline void read_q4_k(const uint8_t *block, int part, KGroup &group) {
    read_q4_k_scales(block, part, group);
    const uint8_t *nibbles = block + 16 + part / 2 * GROUP;
    for (int i = 0; i < GROUP; i++) group.q[i] = (int8_t)(nibbles[i] >> part % 2 * 4 & 15);
}

inline void read_q5_k(const uint8_t *block, int part, KGroup &group) {
    read_q4_k_scales(block, part, group);
    const uint8_t *fifths = block + 16, *nibbles = block + 48 + part / 2 * GROUP;
    for (int i = 0; i < GROUP; i++)
        group.q[i] = (int8_t)((nibbles[i] >> part % 2 * 4 & 15) | (fifths[i] >> part & 1) << 4);
}

inline void read_q6_k(const uint8_t *block, int part, KGroup &group) {
    const uint8_t *nibbles = block + part / 4 * 64 + part % 2 * GROUP, *uppers = block + 128 + part / 4 * GROUP;
    for (int i = 0; i < GROUP; i++) {
        const int low = nibbles[i] >> part % 4 / 2 * 4 & 15, high = uppers[i] >> part % 4 * 2 & 3;
        group.q[i] = (int8_t)((low | high << 4) - 32);
    }
    for (int h = 0; h < 2; h++) group.scale[h] = block_half(block + 208) * (float)(int8_t)block[192 + 2 * part + h];
}

inline void read_q2_k(const uint8_t *block, int part, KGroup &group) {
    const uint8_t *pairs = block + 16 + part / 4 * GROUP;
    for (int i = 0; i < GROUP; i++) group.q[i] = (int8_t)(pairs[i] >> part % 4 * 2 & 3);
    for (int h = 0; h < 2; h++) {
        group.scale[h] = block_half(block + 80) * (float)(block[2 * part + h] & 15);
        group.minimum[h] = block_half(block + 82) * (float)(block[2 * part + h] >> 4);
    }
}

// Scale `number` of Q3_K: its lower four bits are a nibble of eight bytes, its upper two lie in the four behind them.
inline int q3_k_scale(const uint8_t *packed, int number) {
    return ((packed[number % 8] >> number / 8 * 4 & 15) | (packed[8 + number % 4] >> number / 4 * 2 & 3) << 4) - 32;
}

inline void read_q3_k(const uint8_t *block, int part, KGroup &group) {
    const uint8_t *pairs = block + 32 + part / 4 * GROUP;
    for (int i = 0; i < GROUP; i++)
        group.q[i] = (int8_t)((pairs[i] >> part % 4 * 2 & 3) - (block[i] >> part & 1 ? 0 : 4));
    for (int h = 0; h < 2; h++)
        group.scale[h] = block_half(block + 108) * (float)q3_k_scale(block + 96, 2 * part + h);
}

// Group `part`, 0 … 7, of a block.
inline KGroup read_k_group(int source, const uint8_t *block, int part) {
    KGroup group{};
    if (source == SL_FROM_Q2_K) read_q2_k(block, part, group);
    else if (source == SL_FROM_Q3_K) read_q3_k(block, part, group);
    else if (source == SL_FROM_Q4_K) read_q4_k(block, part, group);
    else if (source == SL_FROM_Q5_K) read_q5_k(block, part, group);
    else read_q6_k(block, part, group);
    return group;
}

inline void weights_of(const KGroup &group, float *out) {
    for (int i = 0; i < GROUP; i++)
        out[i] = group.scale[i / HALF_GROUP] * (float)group.q[i] - group.minimum[i / HALF_GROUP];
}

}  // namespace
}  // namespace shardline
