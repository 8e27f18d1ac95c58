// Panel × tile with 16 registers of 8 lanes: 3 rows × 1 tile = 6 integer (or 16-bit) sums, 6 float sums, 2 weights.
// Panels of up to 6 rows are taken in two goes.
//
// Without dot-product instructions, int8 products are added in 16 bits, always exactly:
//   4-bit  unsigned q · signed x, eight products of two: 8 · 2 · 15 · 127 = 30,480 < 32,768, widened once a block.
//   8-bit  unsigned · signed would saturate, so |q| · (x with q's sign): 2 · 128 · 127 = 32,512, widened at once.
#pragma once
#include "lanes_avx2.h"
#include "product.h"

namespace shardline {
namespace SL_TARGET {

constexpr int PRODUCT_ROWS = 3;
constexpr int most_tiles(int) { return 1; }

static inline void fetch_lines(const Product &p, const uint8_t *w) {
    for (int line = p.first_line; line < p.last_line; line++) prefetch_far(w + line * LINE + p.ahead);
}

static inline __m256i spread(int32_t x) { return _mm256_set1_epi32(x); }
static inline __m256i half_line(const uint8_t *w, int half) { return _mm256_loadu_si256((const __m256i *)w + half); }
static inline __m256i widen(__m256i words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

#ifdef __AVXVNNI__
constexpr bool HAS_VNNI = true;
static inline __m256i dot(__m256i sum, __m256i q, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, q, x); }
#else
constexpr bool HAS_VNNI = false;
static inline __m256i dot(__m256i sum, __m256i, __m256i) { return sum; }
#endif

// One line of quants (4 inputs, or 8 in nibbles) times each row, on 8 of the tile's 16 outputs.
template <int FORMAT, int R>
static inline void add_line(__m256i (&sums)[R], __m256i q, const int32_t *x) {
    const __m256i low = _mm256_set1_epi8(15);
    if (FORMAT == SL_W8 && HAS_VNNI) {
        SL_UNROLL
        for (int m = 0; m < R; m++) sums[m] = dot(sums[m], q, spread(x[8 * m]));
    } else if (FORMAT == SL_W8) {
        const __m256i w = _mm256_xor_si256(q, _mm256_set1_epi8((char)0x80)), magnitude = _mm256_abs_epi8(w);
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            const __m256i words = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(spread(x[8 * m]), w));
            sums[m] = _mm256_add_epi32(sums[m], widen(words));
        }
    } else {
        const __m256i first = _mm256_and_si256(q, low), second = _mm256_and_si256(_mm256_srli_epi16(q, 4), low);
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            if (HAS_VNNI) {
                sums[m] = dot(dot(sums[m], first, spread(x[8 * m])), second, spread(x[8 * m + 1]));
            } else {
                sums[m] = _mm256_add_epi16(sums[m], _mm256_maddubs_epi16(first, spread(x[8 * m])));
                sums[m] = _mm256_add_epi16(sums[m], _mm256_maddubs_epi16(second, spread(x[8 * m + 1])));
            }
        }
    }
}

// What a sum starts with: the offset of unsigned quants where the sum is one of them in 32 bits, else nothing.
template <int FORMAT>
static inline __m256i sum_start(int32_t offset) {
    return spread(HAS_VNNI && FORMAT != SL_W4_MIN ? offset : 0);
}
template <int FORMAT>
static inline __m256 sum_end(__m256i sum, int32_t offset) {
    if (!HAS_VNNI && FORMAT != SL_W8) sum = widen(sum);
    if (!HAS_VNNI && FORMAT == SL_W4) sum = _mm256_add_epi32(sum, spread(offset));
    return _mm256_cvtepi32_ps(sum);
}

// A block on 8 outputs, `half` of the tile: total += scale_w · scale_x · sum (- minimum · scale_x · Σx)
template <int FORMAT, int R>
static inline void add_block(__m256 (&total)[R], const uint8_t *w, int half, const int32_t *x, const float *scales,
                             int mr) {
    const int32_t *offsets = (const int32_t *)scales + (FORMAT == SL_W8 ? 3 : 2) * mr;
    __m256i sums[R];
    SL_UNROLL
    for (int m = 0; m < R; m++) sums[m] = sum_start<FORMAT>(offsets[m]);
    constexpr int LINES = FORMAT == SL_W8 ? 8 : 4;
    for (int j = 0; j < LINES; j++) add_line<FORMAT>(sums, half_line(w + j * LINE, half), x + 8 / LINES * j);
    const __m128i *halves = (const __m128i *)(w + quant_bytes(FORMAT)) + half;
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(halves));
    const __m256 minimum = FORMAT == SL_W4_MIN ? _mm256_cvtph_ps(_mm_loadu_si128(halves + 2)) : scale;
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        if (FORMAT == SL_W4_MIN) total[m] = _mm256_fnmadd_ps(minimum, _mm256_set1_ps(scales[mr + m]), total[m]);
        const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(scales[m]));
        total[m] = _mm256_fmadd_ps(sum_end<FORMAT>(sums[m], offsets[m]), factor, total[m]);
    }
}

template <int FORMAT, int R>
static void int8_product(const Product &p, int first_row) {
    __m256 left[R], right[R];
    SL_UNROLL
    for (int m = 0; m < R; m++) left[m] = right[m] = _mm256_setzero_ps();
    const uint8_t *w = p.tiles;
    const int32_t *x = (const int32_t *)p.panel;
    for (int b = 0; b < p.num_blocks; b++, w += block_bytes(FORMAT), x += 12 * p.panel_rows) {
        const float *scales = (const float *)x + 8 * p.panel_rows + first_row;
        if (p.panel_rows == 1) {
            SL_UNROLL
            for (int line = 0; line < num_lines(FORMAT); line++) prefetch_near(w + line * LINE + STREAM_AHEAD);
        } else {
            fetch_lines(p, w);
        }
        add_block<FORMAT>(left, w, 0, x + 8 * first_row, scales, p.panel_rows);
        add_block<FORMAT>(right, w, 1, x + 8 * first_row, scales, p.panel_rows);
    }
    SL_UNROLL
    for (int m = 0; m < R; m++) store(p.out + (first_row + m) * p.out_stride, {left[m], right[m]});
}

static inline __m256 even_inputs(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
static inline __m256 odd_inputs(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int32_t)0xffff0000)));
}

// total += w_odd · x_odd, then total += w_even · x_even, each rounded once: what vdpbf16ps does.
template <int R>
static inline void add_pair(F (&total)[R], const uint8_t *w, const int32_t *x, ptrdiff_t row_step) {
    const __m256i a = half_line(w, 0), b = half_line(w, 1);
    const F odd = {odd_inputs(a), odd_inputs(b)}, even = {even_inputs(a), even_inputs(b)};
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        const __m256i pair = spread(x[m * row_step]);
        const __m256 x_odd = odd_inputs(pair), x_even = even_inputs(pair);
        total[m] = fma(odd, {x_odd, x_odd}, total[m]);
        total[m] = fma(even, {x_even, x_even}, total[m]);
    }
}

template <int R>
static void bf16_product(const Product &p, int first_row) {
    F total[R];
    SL_UNROLL
    for (int m = 0; m < R; m++) total[m] = set(0);
    const uint8_t *w = p.tiles;
    const int32_t *x = (const int32_t *)p.panel + GROUP / 2 * first_row;
    for (int b = 0; b < p.num_blocks; b++) {
        fetch_lines(p, w);
        for (int pair = 0; pair < GROUP / 2; pair++, w += LINE) add_pair(total, w, x + pair, GROUP / 2);
        x += GROUP / 2 * p.panel_rows;
    }
    SL_UNROLL
    for (int m = 0; m < R; m++) store(p.out + (first_row + m) * p.out_stride, total[m]);
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

template <int FORMAT, int>
static void product(const Product &p) {
    const int first = p.panel_rows > PRODUCT_ROWS ? (p.panel_rows + 1) / 2 : p.panel_rows;
    product_rows<FORMAT>(p, 0, first);
    if (p.panel_rows == first) return;
    Product rest = p;
    rest.last_line = rest.first_line = 0;  // the first rows have prefetched
    product_rows<FORMAT>(rest, first, p.panel_rows - first);
}

}  // namespace SL_TARGET
}  // namespace shardline
