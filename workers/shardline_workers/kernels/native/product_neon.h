// Panel × tile with 32 registers of 4 lanes: 3 rows × 1 tile = 12 integer sums, 12 float sums, the rest for weights and
// inputs. Panels of up to 6 rows are taken in two goes.
//
// int8 products are exact sums in 32 bits, whichever way they come about: one sdot for 4 inputs, or, on processors
// without it, products in 16 bits (128 · 127 = 16,256 < 32,768) that are added by pairs. 8-bit quants become signed
// first, so that only 4-bit ones need an offset.
//
// bfdot is not taken: its rounding is not that of two multiply-adds.
#pragma once
#include "lanes_neon.h"
#include "product.h"

// Before the loop over a block's lines: unrolled, it would want more registers than there are.
#ifdef __clang__
#define SL_ROLLED _Pragma("nounroll")
#else
#define SL_ROLLED _Pragma("GCC unroll 1")
#endif

namespace shardline {
namespace SL_TARGET {

constexpr int PRODUCT_ROWS = 3;
constexpr int most_tiles(int) { return 1; }

// sum + four products with the 4 inputs of row M, for each of 4 outputs
#ifdef __ARM_FEATURE_DOTPROD
template <int M>
static inline int32x4_t dot(int32x4_t sum, int8x16_t w, int32x4_t x) {
    return vdotq_laneq_s32(sum, w, vreinterpretq_s8_s32(x), M);
}
#else
template <int M>
static inline int32x4_t dot(int32x4_t sum, int8x16_t w, int32x4_t x) {
    const int8x8_t inputs = vreinterpret_s8_s32(vdup_laneq_s32(x, M));
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), inputs));
    const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(w), inputs));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
#endif

// A line of a tile: 4 inputs of 16 outputs.
struct Bytes {
    int8x16_t v[QUARTERS];
};

template <int M>
static inline I add_dots(I sum, const Bytes &w, int32x4_t x) {
    for (int i = 0; i < QUARTERS; i++) sum.v[i] = dot<M>(sum.v[i], w.v[i], x);
    return sum;
}

// The same for the first R rows of x.
template <int R>
static inline void add_rows(I (&sums)[R], const Bytes &w, int32x4_t x) {
    sums[0] = add_dots<0>(sums[0], w, x);
    if constexpr (R > 1) sums[1] = add_dots<1>(sums[1], w, x);
    if constexpr (R > 2) sums[2] = add_dots<2>(sums[2], w, x);
}

// Four bytes of each of R rows that lie row_step apart.
template <int R>
static inline int32x4_t load_rows(const int32_t *x, ptrdiff_t row_step) {
    int32x4_t rows = vld1q_dup_s32(x);
    if constexpr (R > 1) rows = vld1q_lane_s32(x + row_step, rows, 1);
    if constexpr (R > 2) rows = vld1q_lane_s32(x + 2 * row_step, rows, 2);
    return rows;
}

// One line of quants (4 inputs, or 8 in nibbles) times each row.
template <int FORMAT, int R>
static inline void add_line(I (&sums)[R], const uint8_t *w, const int32_t *x) {
    Bytes first, second;
    for (int i = 0; i < QUARTERS; i++) {
        const uint8x16_t q = vld1q_u8(w + 16 * i);
        first.v[i] = vreinterpretq_s8_u8(FORMAT == SL_W8 ? veorq_u8(q, vdupq_n_u8(0x80)) : vandq_u8(q, vdupq_n_u8(15)));
        second.v[i] = vreinterpretq_s8_u8(vshrq_n_u8(q, 4));
    }
    add_rows(sums, first, load_rows<R>(x, GROUP / 4));
    if (FORMAT != SL_W8) add_rows(sums, second, load_rows<R>(x + 1, GROUP / 4));
}

// A block: total += scale_w · scale_x · sum (- minimum · scale_x · Σx)
template <int FORMAT, int R>
static inline void add_block(F (&total)[R], const uint8_t *w, const int32_t *x, const float *scales, int mr) {
    const int32_t *offsets = (const int32_t *)scales + 2 * mr;
    I sums[R];
    SL_UNROLL
    for (int m = 0; m < R; m++) sums[m] = set_int(FORMAT == SL_W4 ? offsets[m] : 0);
    constexpr int LINES = FORMAT == SL_W8 ? 8 : 4;
    SL_ROLLED
    for (int line = 0; line < LINES; line++) add_line<FORMAT>(sums, w + line * LINE, x + 8 / LINES * line);
    const uint8_t *halves = w + quant_bytes(FORMAT);
    const F scale = load_half(halves), minimum = FORMAT == SL_W4_MIN ? load_half(halves + 2 * TILE) : scale;
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        if (FORMAT == SL_W4_MIN) total[m] = fnma(minimum, set(scales[mr + m]), total[m]);
        total[m] = fma(to_float(sums[m]), mul(scale, set(scales[m])), total[m]);
    }
}

static inline void fetch_lines(const Product &p, const uint8_t *w) {
    for (int line = p.first_line; line < p.last_line; line++) prefetch_far(w + line * LINE + p.ahead);
}

template <int FORMAT>
static inline void fetch_block(const Product &p, const uint8_t *w) {
    if (p.panel_rows > 1) return fetch_lines(p, w);
    for (int line = 0; line < num_lines(FORMAT); line++) prefetch_near(w + line * LINE + STREAM_AHEAD);
}

template <int R>
static inline void clear(F (&total)[R]) {
    SL_UNROLL
    for (int m = 0; m < R; m++) total[m] = set(0);
}

template <int R>
static inline void store_rows(const Product &p, int first_row, const F (&total)[R]) {
    SL_UNROLL
    for (int m = 0; m < R; m++) store(p.out + (first_row + m) * p.out_stride, total[m]);
}

template <int FORMAT, int R>
static void int8_product(const Product &p, int first_row) {
    F total[R];
    clear(total);
    const uint8_t *w = p.tiles;
    const int32_t *x = (const int32_t *)p.panel;
    for (int b = 0; b < p.num_blocks; b++, w += block_bytes(FORMAT), x += 12 * p.panel_rows) {
        const float *scales = (const float *)x + 8 * p.panel_rows + first_row;
        fetch_block<FORMAT>(p, w);
        add_block<FORMAT>(total, w, x + GROUP / 4 * first_row, scales, p.panel_rows);
    }
    store_rows(p, first_row, total);
}

static inline float32x4_t even_inputs(int32x4_t pairs) { return vreinterpretq_f32_s32(vshlq_n_s32(pairs, 16)); }
static inline float32x4_t odd_inputs(int32x4_t pairs) {
    return vreinterpretq_f32_s32(vandq_s32(pairs, vdupq_n_s32((int32_t)0xffff0000)));
}

// sum + w · the input of row M, rounded once, for 16 outputs
template <int M>
static inline F add_product(F sum, const F &w, float32x4_t x) {
    for (int i = 0; i < QUARTERS; i++) sum.v[i] = vfmaq_laneq_f32(sum.v[i], w.v[i], x, M);
    return sum;
}

template <int R>
static inline void add_products(F (&total)[R], const F &w, float32x4_t x) {
    total[0] = add_product<0>(total[0], w, x);
    if constexpr (R > 1) total[1] = add_product<1>(total[1], w, x);
    if constexpr (R > 2) total[2] = add_product<2>(total[2], w, x);
}

// total += w_odd · x_odd, then total += w_even · x_even, each rounded once: what vdpbf16ps does.
template <int R>
static inline void add_pair(F (&total)[R], const uint8_t *w, const int32_t *x, ptrdiff_t row_step) {
    const int32x4_t inputs = load_rows<R>(x, row_step);
    const I weights = load_int(w);
    F odd, even;
    for (int i = 0; i < QUARTERS; i++) odd.v[i] = odd_inputs(weights.v[i]), even.v[i] = even_inputs(weights.v[i]);
    add_products(total, odd, odd_inputs(inputs));
    add_products(total, even, even_inputs(inputs));
}

template <int R>
static void bf16_product(const Product &p, int first_row) {
    F total[R];
    clear(total);
    const uint8_t *w = p.tiles;
    const int32_t *x = (const int32_t *)p.panel + GROUP / 2 * first_row;
    for (int b = 0; b < p.num_blocks; b++) {
        fetch_lines(p, w);
        for (int pair = 0; pair < GROUP / 2; pair++, w += LINE) add_pair(total, w, x + pair, GROUP / 2);
        x += GROUP / 2 * p.panel_rows;
    }
    store_rows(p, first_row, total);
}

template <int FORMAT, int R>
static void product_of(const Product &p, int first_row) {
    if constexpr (FORMAT == SL_BF16) bf16_product<R>(p, first_row);
    else int8_product<FORMAT, R>(p, first_row);
}

template <int FORMAT>
static void product_rows(const Product &p, int first_row, int rows) {
    switch (rows) {
        case 1: return product_of<FORMAT, 1>(p, first_row);
        case 2: return product_of<FORMAT, 2>(p, first_row);
        default: return product_of<FORMAT, 3>(p, first_row);
    }
}

// Rows of the first go: all that fit, or the greater half.
static inline int first_rows(const Product &p) {
    return p.panel_rows > PRODUCT_ROWS ? (p.panel_rows + 1) / 2 : p.panel_rows;
}

template <int FORMAT, int>
static void product(const Product &p) {
    const int first = first_rows(p);
    product_rows<FORMAT>(p, 0, first);
    if (p.panel_rows == first) return;
    Product rest = p;
    rest.last_line = rest.first_line = 0;  // the first rows have prefetched
    product_rows<FORMAT>(rest, first, p.panel_rows - first);
}

}  // namespace SL_TARGET
}  // namespace shardline
