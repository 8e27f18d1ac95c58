// Panel × tile in plain C++, row by row: the meaning of the other product_*.h, and the last resort.
#pragma once
#include "lanes_portable.h"
#include "product.h"

namespace shardline {
namespace SL_TARGET {

constexpr int most_tiles(int) { return 1; }

// q of 4 neighbouring inputs (a dword of the panel) for each output
template <int FORMAT>
static int quant(const uint8_t *w, int dword, int output, int i) {
    if (FORMAT == SL_W8) return w[dword * LINE + output * 4 + i];
    const int byte = w[dword / 2 * LINE + output * 4 + i];
    return dword % 2 ? byte >> 4 : byte & 15;
}

template <int FORMAT>
static I block_sums(const uint8_t *w, const uint8_t *x, int32_t offset) {
    I sums = set_int(FORMAT == SL_W4_MIN ? 0 : offset);
    for (int dword = 0; dword < GROUP / 4; dword++) {
        for (int output = 0; output < TILE; output++) {
            for (int i = 0; i < 4; i++) sums.v[output] += quant<FORMAT>(w, dword, output, i) * (int8_t)x[dword * 4 + i];
        }
    }
    return sums;
}

template <int FORMAT>
static F int8_row(const Product &p, int row) {
    F total = set(0);
    const uint8_t *w = p.tiles, *x = p.panel;
    const int mr = p.panel_rows;
    for (int b = 0; b < p.num_blocks; b++, w += block_bytes(FORMAT), x += panel_group_bytes(SL_INT8) * mr) {
        const float *scales = (const float *)(x + GROUP * mr) + row;
        const int32_t *offsets = (const int32_t *)scales + (FORMAT == SL_W8 ? 3 : 2) * mr;
        const I sums = block_sums<FORMAT>(w, x + GROUP * row, *offsets);
        const F scale = load_half(w + quant_bytes(FORMAT));
        if (FORMAT == SL_W4_MIN) total = fnma(load_half(w + quant_bytes(FORMAT) + 32), set(scales[mr]), total);
        total = fma(to_float(sums), mul(scale, set(*scales)), total);
    }
    return total;
}

// The odd input first, then the even one, each product rounded once with its sum: what vdpbf16ps does.
static F pair_row(F total, const uint8_t *w, const int32_t *x, int num_pairs) {
    const I odd = set_int((int32_t)0xffff0000);
    for (int pair = 0; pair < num_pairs; pair++, w += LINE, x++) {
        const I weights = load_int(w), inputs = set_int(*x);
        total = fma(from_bits(bit_and(weights, odd)), from_bits(bit_and(inputs, odd)), total);
        total = fma(from_bits(shift_left<16>(weights)), from_bits(shift_left<16>(inputs)), total);
    }
    return total;
}

static F bf16_row(const Product &p, int row) {
    F total = set(0);
    const uint8_t *x = p.panel + 2 * GROUP * row;
    for (int b = 0; b < p.num_blocks; b++, x += panel_group_bytes(SL_PAIRS) * p.panel_rows)
        total = pair_row(total, p.tiles + block_bytes(SL_BF16) * b, (const int32_t *)x, GROUP / 2);
    return total;
}

template <int FORMAT, int>
static void product(const Product &p) {
    for (int row = 0; row < p.panel_rows; row++) {
        float *out = p.out + row * p.out_stride;
        if constexpr (FORMAT == SL_BF16) store(out, bf16_row(p, row));
        else store(out, int8_row<FORMAT>(p, row));
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
