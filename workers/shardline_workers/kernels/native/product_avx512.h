// Panel × tiles with 32 registers of 16 lanes. int8: 6 rows × 2 tiles = 12 integer sums and 12 float sums, 4 weights,
// 1 mask. bfloat16: 6 rows × 4 tiles = 24 sums and 4 weights.
#pragma once
#include "lanes_avx512.h"
#include "product.h"

namespace shardline {
namespace SL_TARGET {

constexpr int PRODUCT_ROWS = 6;  // at most, per call
constexpr int most_tiles(int format) { return format == SL_BF16 ? 4 : 2; }

template <int T>
static inline void fetch_lines(const Product &p, const uint8_t *w) {
    SL_UNROLL
    for (int t = 0; t < T; t++)
        for (int line = p.first_line; line < p.last_line; line++)
            prefetch_far(w + p.tile_stride * t + line * LINE + p.ahead);
}

// sums += q · x over the 32 inputs of a block; exact in int32.
template <int FORMAT, int R, int T>
static inline void add_block(I (&sums)[R][T], const Product &p, const uint8_t *w, const int32_t *x) {
    const I low = _mm512_set1_epi8(15);
    SL_UNROLL
    for (int j = 0; j < (FORMAT == SL_W8 ? 8 : 4); j++) {
        I first[T], second[T];
        SL_UNROLL
        for (int t = 0; t < T; t++) {
            first[t] = load_int(w + p.tile_stride * t + j * LINE);
            if (FORMAT == SL_W8) continue;
            second[t] = bit_and(_mm512_srli_epi16(first[t], 4), low);
            first[t] = bit_and(first[t], low);
        }
        const int32_t *words = x + (FORMAT == SL_W8 ? j : 2 * j);
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            SL_UNROLL
            for (int t = 0; t < T; t++) sums[m][t] = _mm512_dpbusd_epi32(sums[m][t], first[t], set_int(words[8 * m]));
        }
        if (FORMAT == SL_W8) continue;
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            SL_UNROLL
            for (int t = 0; t < T; t++)
                sums[m][t] = _mm512_dpbusd_epi32(sums[m][t], second[t], set_int(words[8 * m + 1]));
        }
    }
}

// total += scale_w · scale_x · sum (- minimum · scale_x · Σx)
template <int FORMAT, int R, int T>
static inline void add_scaled(F (&total)[R][T], const I (&sums)[R][T], const Product &p, const uint8_t *w,
                              const float *scales) {
    SL_UNROLL
    for (int t = 0; t < T; t++) {
        const uint8_t *halves = w + p.tile_stride * t + quant_bytes(FORMAT);
        const F scale = load_half(halves), minimum = FORMAT == SL_W4_MIN ? load_half(halves + 32) : scale;
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            if (FORMAT == SL_W4_MIN) total[m][t] = fnma(minimum, set(scales[R + m]), total[m][t]);
            total[m][t] = fma(to_float(sums[m][t]), mul(scale, set(scales[m])), total[m][t]);
        }
    }
}

template <int R, int T>
static inline void store_all(const Product &p, const F (&total)[R][T]) {
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) store(p.out + m * p.out_stride + TILE * t, total[m][t]);
    }
}

template <int FORMAT, int R, int T>
static void int8_product(const Product &p) {
    constexpr int64_t BLOCK = block_bytes(FORMAT);
    F total[R][T];
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) total[m][t] = set(0);
    }
    const uint8_t *w = p.tiles, *a = p.panel;
    for (int b = 0; b < p.num_blocks; b++, w += BLOCK, a += panel_group_bytes(SL_INT8) * R) {
        const int32_t *x = (const int32_t *)a, *offsets = x + (FORMAT == SL_W8 ? 11 : 10) * R;
        I sums[R][T];
        // The offset of unsigned quants is the sum's starting value, and so costs nothing.
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            SL_UNROLL
            for (int t = 0; t < T; t++) sums[m][t] = set_int(FORMAT == SL_W4_MIN ? 0 : offsets[m]);
        }
        if (R == 1 && T == 1) {
            SL_UNROLL
            for (int line = 0; line < num_lines(FORMAT); line++) prefetch_near(w + line * LINE + STREAM_AHEAD);
        } else {
            fetch_lines<T>(p, w);
        }
        add_block<FORMAT>(sums, p, w, x);
        add_scaled<FORMAT>(total, sums, p, w, (const float *)a + 8 * R);
    }
    store_all(p, total);
}

// total += w_odd · x_odd, then total += w_even · x_even, each rounded once: what vdpbf16ps does in one instruction, and
// two multiply-adds where that is missing or slow (see isa.cpp). x: a pair of inputs of each row, row_step apart.
#ifdef __AVX512BF16__
template <int R, int T>
static inline void add_pair(F (&total)[R][T], const Product &p, const uint8_t *w, const int32_t *x,
                            ptrdiff_t row_step) {
    I v[T];
    SL_UNROLL
    for (int t = 0; t < T; t++) v[t] = load_int(w + p.tile_stride * t);
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        const __m512bh pair = (__m512bh)set_int(x[m * row_step]);
        SL_UNROLL
        for (int t = 0; t < T; t++) total[m][t] = _mm512_dpbf16_ps(total[m][t], (__m512bh)v[t], pair);
    }
}
#else
template <bool ODD>
static inline F widen(I pairs) {
    return from_bits(ODD ? bit_and(pairs, set_int((int32_t)0xffff0000)) : shift_left<16>(pairs));
}
// One of each two inputs. Weights are loaded for each half anew, which leaves registers for 6 rows × 4 tiles.
template <bool ODD, int R, int T>
static inline void add_halves(F (&total)[R][T], const Product &p, const uint8_t *w, const int32_t *x,
                              ptrdiff_t row_step) {
    F v[T];
    SL_UNROLL
    for (int t = 0; t < T; t++) v[t] = widen<ODD>(load_int(w + p.tile_stride * t));
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        const F half = widen<ODD>(set_int(x[m * row_step]));
        SL_UNROLL
        for (int t = 0; t < T; t++) total[m][t] = fma(v[t], half, total[m][t]);
    }
}
template <int R, int T>
static inline void add_pair(F (&total)[R][T], const Product &p, const uint8_t *w, const int32_t *x,
                            ptrdiff_t row_step) {
    add_halves<true>(total, p, w, x, row_step);
    add_halves<false>(total, p, w, x, row_step);
}
#endif

template <int R, int T>
static void bf16_product(const Product &p) {
    F total[R][T];
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) total[m][t] = set(0);
    }
    const uint8_t *w = p.tiles;
    const int32_t *x = (const int32_t *)p.panel;
    for (int b = 0; b < p.num_blocks; b++) {
        fetch_lines<T>(p, w);
        for (int pair = 0; pair < GROUP / 2; pair++, w += LINE) add_pair(total, p, w, x + pair, GROUP / 2);
        x += GROUP / 2 * R;
    }
    store_all(p, total);
}

template <int FORMAT, int R, int T>
static void product_of(const Product &p) {
    if constexpr (FORMAT == SL_BF16) bf16_product<R, T>(p);
    else int8_product<FORMAT, R, T>(p);
}

template <int FORMAT, int T>
static void product(const Product &p) {
    switch (p.panel_rows) {
        case 1: return product_of<FORMAT, 1, T>(p);
        case 2: return product_of<FORMAT, 2, T>(p);
        case 3: return product_of<FORMAT, 3, T>(p);
        case 4: return product_of<FORMAT, 4, T>(p);
        case 5: return product_of<FORMAT, 5, T>(p);
        default: return product_of<FORMAT, 6, T>(p);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
