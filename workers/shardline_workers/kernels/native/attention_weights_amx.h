// Scores of 16 rows and one page to softmax's weights, a vector of 16 keys at a time. Greatest scores and sums of all
// rows are found together, in one tree of shuffles.
#pragma once
#include <cmath>

#include "attention_page.h"

namespace shardline {
namespace SL_TARGET {

// 2^x for x ≤ 0, relative error 3e-6: a thousandth of what rounding to bfloat16 takes afterwards. 1 at 0, 0 below
// 2^-126, NaN of NaN. 2^(x - floor(x)) is a polynomial of the least greatest error.
static inline F weight_of(F x) {
    const F f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    F p = set(1.34266866e-2f);
    p = fma(p, f, set(5.2242469e-2f));
    p = fma(p, f, set(2.41280213e-1f));
    p = fma(p, f, set(6.93044841e-1f));
    p = fma(p, f, set(1.f));
    return _mm512_scalef_ps(p, x);
}

struct Greater {
    static F both(F a, F b) { return max(a, b); }
    static float of(F a) { return reduce_max(a); }
};
struct Sum {
    static F both(F a, F b) { return add(a, b); }
    static float of(F a) { return reduce_add(a); }
};

// Eight lanes of a row, and four of each of four rows.
template <class Op>
static inline F halve(F a, F b) {
    return Op::both(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
template <class Op>
static inline F quarter(F a, F b, F c, F d) {
    const F ab = halve<Op>(a, b), cd = halve<Op>(c, d);
    return Op::both(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

// Lane i is row i's greatest lane, or the sum of its lanes in the order of reduce_add().
template <class Op>
static F across(const F *rows) {
    const F a = quarter<Op>(rows[0], rows[4], rows[8], rows[12]), b = quarter<Op>(rows[1], rows[5], rows[9], rows[13]),
            c = quarter<Op>(rows[2], rows[6], rows[10], rows[14]),
            d = quarter<Op>(rows[3], rows[7], rows[11], rows[15]);
    const F ab = Op::both(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)),
            cd = Op::both(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d first = _mm512_castps_pd(ab), second = _mm512_castps_pd(cd);
    return Op::both(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                    _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
}

// The same for a few rows; other lanes are 0.
template <class Op>
static F across(const F *rows, int count) {
    constexpr int FEW = 4;
    if (count > FEW) return across<Op>(rows);
    alignas(64) float lanes[TILE] = {};
    for (int i = 0; i < count; i++) lanes[i] = Op::of(rows[i]);
    return load(lanes);
}

// Up to 16 rows of an item on a page. Products of rows and keys are [rows, BLOCK_SIZE_MAX], so are weights.
struct RowTile {
    const AttentionItem &item;
    const Page &page;
    int first, count;
    float *products;
    uint16_t *weights;
    float scale;  // of products, to scores times log2 e
};

// Keys that a row sees, a bit each.
static uint64_t seen_keys(const RowTile &tile, int i) {
    const Seen keys = seen(tile.item, tile.page, tile.first + i);
    if (keys.none()) return 0;
    return ~(uint64_t)0 >> (64 - (keys.end - keys.from)) << keys.from;
}

// Scores that are not proportional to products, or not in their order, in the place of products.
static void rescore(const RowTile &tile, const ScoreRule &rule, int vectors) {
    for (int i = 0; i < tile.count; i++)
        for (int j = 0; j < vectors; j++) {
            float *at = tile.products + i * BLOCK_SIZE_MAX + TILE * j;
            store(at, rule.score(load(at)));
        }
}

template <int VECTORS, bool MASKED>
static F greatest_products(const RowTile &tile) {
    F rows[TILE];
    for (int i = 0; i < tile.count; i++) {
        const float *products = tile.products + i * BLOCK_SIZE_MAX;
        const uint64_t keys = MASKED ? seen_keys(tile, i) : 0;
        F v[VECTORS];
        SL_UNROLL
        for (int j = 0; j < VECTORS; j++) {
            v[j] = MASKED ? _mm512_mask_loadu_ps(set(-INFINITY), (M)(keys >> TILE * j), products + TILE * j)
                          : load(products + TILE * j);
        }
        SL_UNROLL
        for (int n = VECTORS / 2; n; n /= 2) {
            SL_UNROLL
            for (int j = 0; j < n; j++) v[j] = max(v[j], v[j + n]);
        }
        rows[i] = v[0];
    }
    for (int i = tile.count; i < TILE; i++) rows[i] = set(0);
    return across<Greater>(rows, tile.count);
}

// Writes the weights and returns their sums, a lane for each row.
template <int VECTORS, bool MASKED>
static F put_weights(const RowTile &tile, const float *greatest) {
    F rows[TILE];
    const F scale = set(tile.scale);
    for (int i = 0; i < tile.count; i++) {
        const float *products = tile.products + i * BLOCK_SIZE_MAX;
        const uint64_t keys = MASKED ? seen_keys(tile, i) : 0;
        const F least = set(greatest[i]);
        F v[VECTORS];
        SL_UNROLL
        for (int j = 0; j < VECTORS; j++) {
            v[j] = weight_of(_mm512_fmsub_ps(load(products + TILE * j), scale, least));
            if (MASKED) v[j] = select((M)(keys >> TILE * j), v[j], set(0));
        }
        uint16_t *weights = tile.weights + i * BLOCK_SIZE_MAX;
        SL_UNROLL
        for (int j = 0; j < VECTORS; j += 2)
            store_int(weights + TILE * j, (I)_mm512_cvtne2ps_pbh(v[j + 1], v[j]));
        SL_UNROLL
        for (int n = VECTORS / 2; n; n /= 2) {
            SL_UNROLL
            for (int j = 0; j < n; j++) v[j] = add(v[j], v[j + n]);
        }
        rows[i] = v[0];
    }
    for (int i = tile.count; i < TILE; i++) rows[i] = set(0);
    return across<Sum>(rows, tile.count);
}

static void rescale_sums(const RowTile &tile, int size, M changed, const float *factors, float *sums) {
    for (uint32_t left = lane_bits(changed) & ((1u << tile.count) - 1); left; left &= left - 1) {
        const int i = __builtin_ctz(left);
        float *row = sums + i * size;
        for (int d = 0; d < size; d += TILE) store(row + d, mul(load(row + d), set(factors[i])));
    }
}

// Rows that see nothing of the page keep what they have, and get weights of 0.
template <int VECTORS, bool MASKED>
static void weigh_tile(const RowTile &tile, int size, Softmax &softmax) {
    alignas(64) float factors[TILE];
    float *greatest = softmax.greatest + tile.first, *total = softmax.total + tile.first;
    const F before = load(greatest),
            now = max(before, mul(greatest_products<VECTORS, MASKED>(tile), set(tile.scale)));
    const F factor = weight_of(sub(before, now));
    store(greatest, now);
    store(factors, factor);
    rescale_sums(tile, size, less(before, now), factors, softmax.sums + tile.first * size);
    store(total, fma(load(total), factor, put_weights<VECTORS, MASKED>(tile, greatest)));
}

// `vectors` of 16 keys: 2 or 4.
static void weigh_tile(const RowTile &tile, int vectors, bool is_masked, int size, Softmax &softmax) {
    if (vectors == 2 && is_masked) weigh_tile<2, true>(tile, size, softmax);
    else if (vectors == 2) weigh_tile<2, false>(tile, size, softmax);
    else if (is_masked) weigh_tile<4, true>(tile, size, softmax);
    else weigh_tile<4, false>(tile, size, softmax);
}

}  // namespace SL_TARGET
}  // namespace shardline
