// Sums over ranks, in their order: ((rank 0 + rank 1) + rank 2) + …, each number by itself.
#pragma once
#include <algorithm>
#include <cstdint>

#include "half.h"

namespace shardline {
namespace {

// As torch rounds: to nearest, ties to even, denormals kept.
struct Bfloat16 {
    using Sum = float;
    uint16_t bits;
    Sum load() const { return bf16_to_float(bits); }
    void store(Sum value) {
        const uint32_t wide = float_bits(value), rounded = (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
        bits = (wide & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
    }
};

template <class Float> struct Plain {
    using Sum = Float;
    Float value;
    Sum load() const { return value; }
    void store(Sum sum) { value = sum; }
};

// rows: the ranks' numbers, each row row_bytes after the one before.
template <class Number>
void sum_ranks(const uint8_t *rows, int64_t row_bytes, int num_ranks, int64_t count, void *out) {
    constexpr int64_t BLOCK = 256;  // sums stay in the first cache
    typename Number::Sum sums[BLOCK];
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t length = std::min(BLOCK, count - start);
        const Number *first = (const Number *)rows + start;
        for (int64_t i = 0; i < length; i++) sums[i] = first[i].load();
        for (int rank = 1; rank < num_ranks; rank++) {
            const Number *row = (const Number *)(rows + rank * row_bytes) + start;
            for (int64_t i = 0; i < length; i++) sums[i] += row[i].load();
        }
        for (int64_t i = 0; i < length; i++) ((Number *)out)[start + i].store(sums[i]);
    }
}

using SumRanks = void (*)(const uint8_t *, int64_t, int, int64_t, void *);
// By enum sl_number.
constexpr SumRanks SUM_RANKS[SL_NUMBER_COUNT] = {sum_ranks<Plain<float>>, sum_ranks<Bfloat16>,
                                                 sum_ranks<Plain<double>>};
constexpr int64_t NUMBER_BYTES[SL_NUMBER_COUNT] = {4, 2, 8};

}  // namespace
}  // namespace shardline
