// Attention on a page of int8: all products are sums of integers, exact on every instruction set.
//
//   scores   int8 queries (a scale for each row and 32 dimensions) · keys: the product of linear layers with SL_W8
//   weights  softmax's weight times the value's scale, as an integer of 14 bits below the row's greatest in the page:
//            7 bits would lose the many small weights that stand beside a great one, as the first token's often is.
//            Upper and lower 7 bits go through the product apart, and meet as integers.
#pragma once
#include "attention_page.h"
#include "half.h"
#include "quantise.h"

namespace shardline {
namespace SL_TARGET {

constexpr int LIMB_BITS = 7;
constexpr float WEIGHT_MAX = (1 << 2 * LIMB_BITS) - 1;

// Weights of values of up to 6 rows: value of key k is (128 · upper[k] + lower[k]) · scale.
struct IntegerWeights {
    alignas(64) uint8_t upper[PANEL_ROWS][BLOCK_SIZE_MAX], lower[PANEL_ROWS][BLOCK_SIZE_MAX];
    float scale[PANEL_ROWS];
};

static void multiply_int8_keys(const sl_attention &a, const AttentionItem &item, const Page &page, float *products) {
    constexpr int MOST = most_tiles(SL_W8);
    Product p{};
    p.tiles = page.keys;
    p.tile_stride = (ptrdiff_t)key_tile_bytes(a.cache);
    p.panel = item.panel;
    p.panel_rows = item.count;
    p.num_blocks = (int)ceil_div(a.cache.head_dim, GROUP);
    p.out = products;
    p.out_stride = BLOCK_SIZE_MAX;
    p.ahead = page.values - page.keys;  // keys prefetch their values
    p.last_line = num_lines(SL_W8);
    const int tiles = page.tiles();
    for (int done = 0, n; done < tiles; done += n, p.tiles += n * p.tile_stride, p.out += n * TILE) {
        n = tiles - done >= MOST ? MOST : 1;
        if (n == MOST) product<SL_W8, MOST>(p);
        else if constexpr (MOST > 1) product<SL_W8, 1>(p);
    }
}

// What lies beyond the keys that are seen is never read, as its weight is 0: a scale there may be a NaN.
static void round_weights(const F *v, const float *scales, int tiles, IntegerWeights &out, int row) {
    F scaled[PAGE_TILES];
    I largest = set_int(0);
    for (int j = 0; j < tiles; j++) {
        scaled[j] = select(less(set(0), v[j]), mul(v[j], load(scales + TILE * j)), set(0));
        largest = max(largest, bit_and(bits(scaled[j]), set_int(0x7fffffff)));  // as integers NaN is the largest
    }
    const float most = bits_float((uint32_t)reduce_max(largest)), inverse = most > 0 ? WEIGHT_MAX / most : 0.f;
    for (int j = 0; j < tiles; j++) {
        const I weight = to_int(mul(scaled[j], set(inverse)));
        store_bytes(out.upper[row] + TILE * j, shift_right<LIMB_BITS>(weight));
        store_bytes(out.lower[row] + TILE * j, bit_and(weight, set_int((1 << LIMB_BITS) - 1)));
    }
    out.scale[row] = most / WEIGHT_MAX;
}

// sums of R rows and T tiles of dimensions += weights · values, of num_quads times 4 keys.
template <int R, int T>
static void add_value_tiles(const uint8_t *tiles, ptrdiff_t tile_stride, ptrdiff_t ahead, const IntegerWeights &weights,
                            int first_row, int num_quads, float *sums, int size) {
    I upper[R][T], lower[R][T];
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) upper[m][t] = lower[m][t] = set_int(0);
    }
    for (int quad = 0; quad < num_quads; quad++, tiles += LINE) {
        I values[T];
        SL_UNROLL
        for (int t = 0; t < T; t++) {
            values[t] = load_int(tiles + tile_stride * t);
            prefetch_far(tiles + tile_stride * t + ahead);
        }
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            int32_t words[2];
            memcpy(words, weights.upper[first_row + m] + 4 * quad, 4);
            memcpy(words + 1, weights.lower[first_row + m] + 4 * quad, 4);
            SL_UNROLL
            for (int t = 0; t < T; t++) {
                upper[m][t] = dot(upper[m][t], set_int(words[0]), values[t]);
                lower[m][t] = dot(lower[m][t], set_int(words[1]), values[t]);
            }
        }
    }
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) {
            float *to = sums + m * size + TILE * t;
            const F whole = to_float(add(shift_left<LIMB_BITS>(upper[m][t]), lower[m][t]));
            store(to, fma(whole, set(weights.scale[first_row + m]), load(to)));
        }
    }
}

template <int T>
static void add_value_rows(const uint8_t *tiles, ptrdiff_t tile_stride, ptrdiff_t ahead, const IntegerWeights &weights,
                           int first_row, int rows, int num_quads, float *sums, int size) {
    switch (rows) {
        case 1: return add_value_tiles<1, T>(tiles, tile_stride, ahead, weights, first_row, num_quads, sums, size);
        case 2: return add_value_tiles<2, T>(tiles, tile_stride, ahead, weights, first_row, num_quads, sums, size);
        default: return add_value_tiles<3, T>(tiles, tile_stride, ahead, weights, first_row, num_quads, sums, size);
    }
}

static void add_int8_values(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax,
                            const IntegerWeights &weights) {
    constexpr int ROWS = 3, MOST = most_tiles(SL_W8);  // 3 rows × 2 tiles × upper and lower: 12 sums
    const int size = a.cache.head_dim, num_quads = (page.visible + 3) / 4;
    const ptrdiff_t stride = (ptrdiff_t)a.cache.block_size * TILE;
    const ptrdiff_t ahead = (ptrdiff_t)((uintptr_t)page.next.keys - (uintptr_t)page.values);
    for (int tile = 0, n; tile < size / TILE; tile += n) {
        n = size / TILE - tile >= MOST ? MOST : 1;
        for (int row = 0; row < item.count; row += ROWS) {
            const int rows = item.count - row < ROWS ? item.count - row : ROWS;
            const uint8_t *tiles = page.values + stride * tile;
            float *sums = softmax.sums + row * size + TILE * tile;
            if (n == MOST) add_value_rows<MOST>(tiles, stride, ahead, weights, row, rows, num_quads, sums, size);
            else if constexpr (MOST > 1)
                add_value_rows<1>(tiles, stride, ahead, weights, row, rows, num_quads, sums, size);
        }
    }
}

static void add_int8_page(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax) {
    alignas(64) float products[PANEL_ROWS * BLOCK_SIZE_MAX];
    IntegerWeights weights;
    const int size = a.cache.head_dim, tiles = page.tiles();
    const float *scales = (const float *)(page.values + (int64_t)a.cache.block_size * size);
    multiply_int8_keys(a, item, page, products);
    const ScoreRule rule(a);
    for (int row = 0; row < item.count; row++) {
        const Seen keys = seen(item, page, row);
        F v[PAGE_TILES];
        if (keys.none()) {
            for (int j = 0; j < tiles; j++) v[j] = set(0);
        } else {
            weigh_row(softmax, row, products + row * BLOCK_SIZE_MAX, rule, keys, tiles, size, v);
        }
        round_weights(v, scales, tiles, weights, row);
    }
    add_int8_values(a, item, page, softmax, weights);
}

}  // namespace SL_TARGET
}  // namespace shardline
