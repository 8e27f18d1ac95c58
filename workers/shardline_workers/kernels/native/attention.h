// Paged attention (Kwon et al. 2023) as two small products on pages that are packed like weights: scores = queries ·
// keysᵀ and out = weights · values run in the same inner loop as linear layers, without gathers and horizontal sums.
//
// Up to 6 rows (a token's query head each) that share a key head are taken together. Their softmax is the online one
// (Milakov, Gimelshein 2018), one step a page. Keys are cut into splits of 256 positions; a row's splits are merged in
// their order, whether one thread computes them one after the other or several side by side. So decode, chunks of a
// prompt and any batch give a row the same bits.
#pragma once
#include <cfloat>

#include "attention_scratch.h"
#include "exponential.h"
#include "product.h"
#include "quantise.h"
#include "work.h"

namespace shardline {
namespace SL_TARGET {

constexpr float NOTHING = -1e30f;  // a score that gets no weight; finite, so that differences of two are no NaN

// One item: rows first … first + count - 1 of a sequence's (token, query head) pairs, on one key head.
struct AttentionItem {
    int sequence, kv_head, first, count;
    int last[PANEL_ROWS];                                     // greatest position that each row sees
    int end;                                                  // greatest of them
    alignas(64) uint16_t queries[PANEL_ROWS * HEAD_DIM_MAX];  // [count, head_dim]
};

static int num_groups(const sl_attention &a, const Work &work, int sequence) {
    const int tokens = work.step.query_starts[sequence + 1] - work.step.query_starts[sequence];
    return (tokens * (a.num_heads / a.cache.num_kv_heads) + PANEL_ROWS - 1) / PANEL_ROWS;
}

// Token and query head of row i of an item.
static int token_of(const sl_attention &a, const Work &work, const AttentionItem &item, int i) {
    return work.step.query_starts[item.sequence] + (item.first + i) / (a.num_heads / a.cache.num_kv_heads);
}
static int head_of(const sl_attention &a, const AttentionItem &item, int i) {
    const int group = a.num_heads / a.cache.num_kv_heads;
    return item.kv_head * group + (item.first + i) % group;
}

static void gather_item(const sl_attention &a, const Work &work, AttentionItem &item, int sequence, int kv_head,
                        int group) {
    const int starts = work.step.query_starts[sequence], tokens = work.step.query_starts[sequence + 1] - starts;
    const int rows = tokens * (a.num_heads / a.cache.num_kv_heads), size = a.cache.head_dim;
    item.sequence = sequence;
    item.kv_head = kv_head;
    item.first = group * PANEL_ROWS;
    item.count = rows - item.first < PANEL_ROWS ? rows - item.first : PANEL_ROWS;
    for (int i = 0; i < item.count; i++) {
        const int64_t token = token_of(a, work, item, i), head = head_of(a, item, i);
        memcpy(item.queries + i * size, a.queries + (token * a.num_heads + head) * size,
               sizeof(uint16_t) * (size_t)size);
        item.last[i] = (int)(work.step.context_lengths[sequence] - tokens + (token - starts));
    }
    item.end = item.last[item.count - 1];
}

// rows · tiles, with as many tiles at a time as the registers hold.
static void multiply_rows(Product p, int tiles, int num_pairs, ptrdiff_t row_step) {
    constexpr int MOST = most_tiles(SL_BF16);
    for (int done = 0, n; done < tiles; done += n, p.tiles += n * p.tile_stride, p.out += n * TILE) {
        n = tiles - done >= MOST ? MOST : 1;
        if (n == MOST) row_product<MOST>(p, num_pairs, row_step);
        else if constexpr (MOST > 1) row_product<1>(p, num_pairs, row_step);
    }
}

// Scores of one row's page to weights, [block_size] bfloat16; `visible` of them count. Rescales the row's sums.
static void weigh_page(Softmax &softmax, int row, const float *scores, int tiles, int visible, float factor,
                       uint16_t *weights, int size) {
    F v[BLOCK_SIZE_MAX / TILE], greatest = set(softmax.greatest[row]), total = set(0);
    for (int j = 0; j < tiles; j++) {
        v[j] = select(first_lanes(visible - TILE * j), mul(load(scores + TILE * j), set(factor)), set(NOTHING));
        greatest = max(greatest, v[j]);
    }
    const float now = reduce_max(greatest), rescale = exp2(softmax.greatest[row] - now);
    for (int j = 0; j < tiles; j++) {
        v[j] = exp2(sub(v[j], set(now)));
        total = add(total, v[j]);
        store_bf16(weights + TILE * j, v[j]);
    }
    softmax.greatest[row] = now;
    softmax.total[row] = softmax.total[row] * rescale + reduce_add(total);
    float *sums = softmax.sums + row * size;
    if (rescale == 1) return;  // the common case once the greatest score has been seen
    for (int d = 0; d < size; d += TILE) store(sums + d, mul(load(sums + d), set(rescale)));
}

static void add_values(const sl_attention &a, const AttentionItem &item, Softmax &softmax, Product p, int visible) {
    alignas(64) float products[PANEL_ROWS * HEAD_DIM_MAX];
    const int size = a.cache.head_dim;
    p.tile_stride = (ptrdiff_t)a.cache.block_size * TILE * 2;
    p.out = products;
    p.out_stride = size;
    // Pairs beyond the last visible key would add 0 · whatever lies there.
    multiply_rows(p, size / TILE, (visible + 1) / 2, BLOCK_SIZE_MAX / 2);
    for (int i = 0; i < item.count * size; i += TILE)
        store(softmax.sums + i, add(load(softmax.sums + i), load(products + i)));
}

// Adds the page of keys first_key … to the item's softmax.
static void add_page(const sl_attention &a, const AttentionItem &item, Softmax &softmax, const uint16_t *page,
                     const uint16_t *next, int first_key) {
    alignas(64) float scores[PANEL_ROWS * BLOCK_SIZE_MAX];
    alignas(64) uint16_t weights[PANEL_ROWS * BLOCK_SIZE_MAX];
    const int size = a.cache.head_dim, left = item.end - first_key + 1;
    const int visible = left < a.cache.block_size ? left : a.cache.block_size, tiles = (visible + TILE - 1) / TILE;
    const uint16_t *values = page + (int64_t)a.cache.block_size * size;
    Product p{};
    p.tiles = (const uint8_t *)page;
    p.tile_stride = (ptrdiff_t)size * TILE * 2;
    p.panel = (const uint8_t *)item.queries;
    p.panel_rows = item.count;
    p.out = scores;
    p.out_stride = BLOCK_SIZE_MAX;
    p.ahead = (const uint8_t *)values - (const uint8_t *)page;  // keys prefetch their values,
    multiply_rows(p, tiles, size / 2, size / 2);
    for (int i = 0; i < item.count; i++)
        weigh_page(softmax, i, scores + i * BLOCK_SIZE_MAX, tiles, item.last[i] - first_key + 1, a.scale * LOG2_E,
                   weights + i * BLOCK_SIZE_MAX, size);
    p.tiles = (const uint8_t *)values;
    p.panel = (const uint8_t *)weights;
    p.ahead = (ptrdiff_t)((uintptr_t)next - (uintptr_t)values);  // values the next page's keys
    add_values(a, item, softmax, p, visible);
}

static void clear(Softmax &softmax, int count, int size) {
    for (int i = 0; i < count; i++) softmax.greatest[i] = NOTHING, softmax.total[i] = 0;
    memset(softmax.sums, 0, sizeof(float) * (size_t)(count * size));
}

static int num_splits(const AttentionItem &item) { return item.end / SPLIT + 1; }

static void compute_split(const sl_attention &a, const Work &work, const AttentionItem &item, int split,
                          Softmax &softmax) {
    const sl_kv_cache &cache = a.cache;
    const int64_t *table = work.step.block_tables + work.step.slots[item.sequence] * work.max_blocks;
    const uint16_t *base = static_cast<const uint16_t *>(cache.blocks) + item.kv_head * head_values(cache);
    const int last_key = item.end < (split + 1) * SPLIT - 1 ? item.end : (split + 1) * SPLIT - 1;
    clear(softmax, item.count, cache.head_dim);
    for (int key = split * SPLIT; key <= last_key; key += cache.block_size) {
        const int number = key / cache.block_size, following = key + cache.block_size <= item.end ? number + 1 : number;
        const uint16_t *page = base + table[number] * block_values(cache),
                       *next = base + table[following] * block_values(cache);
        add_page(a, item, softmax, page, next, key);
    }
}

// whole = whole and then part, for the rows that see keys of the part.
static void merge(const AttentionItem &item, int split, int size, const Softmax &part, Softmax &whole) {
    for (int i = 0; i < item.count; i++) {
        if (item.last[i] < split * SPLIT) continue;
        const float greatest = whole.greatest[i] > part.greatest[i] ? whole.greatest[i] : part.greatest[i];
        const float old = exp2(whole.greatest[i] - greatest), fresh = exp2(part.greatest[i] - greatest);
        whole.greatest[i] = greatest;
        whole.total[i] = whole.total[i] * old + part.total[i] * fresh;
        float *sums = whole.sums + i * size;
        const float *more = part.sums + i * size;
        for (int d = 0; d < size; d += TILE)
            store(sums + d, fma(load(sums + d), set(old), mul(load(more + d), set(fresh))));
    }
}

static void finish(const sl_attention &a, const Work &work, const AttentionItem &item, const Softmax &softmax) {
    const int size = a.cache.head_dim;
    const PanelSplit split(work.count(SL_TOKENS));
    for (int i = 0; i < item.count; i++) {
        const int token = token_of(a, work, item, i), column = head_of(a, item, i) * size;
        const float *sums = softmax.sums + i * size;
        const F inverse = set(1.f / softmax.total[i]);
        if (a.out) {
            float *out = a.out + (int64_t)token * a.num_heads * size + column;
            for (int d = 0; d < size; d += TILE) store(out + d, mul(load(sums + d), inverse));
        }
        if (!a.panels.bytes) continue;
        const PanelPlace place = panel_place(a.panels, split, token);
        for (int d = 0; d < size; d += GROUP)
            put_group(a.panels, place, (column + d) / GROUP, mul(load(sums + d), inverse),
                      mul(load(sums + d + TILE), inverse));
    }
}

// All splits of an item, one after the other.
static void compute_item(const sl_attention &a, const Work &work, const AttentionItem &item) {
    Softmax whole, part;
    compute_split(a, work, item, 0, whole);
    for (int split = 1; split < num_splits(item); split++) {
        compute_split(a, work, item, split, part);
        merge(item, split, a.cache.head_dim, part, whole);
    }
    finish(a, work, item, whole);
}

template <class Visit>
static int for_each_item(const sl_attention &a, const Work &work, Visit visit) {
    int number = 0;
    for (int sequence = 0; sequence < work.count(SL_SEQUENCES); sequence++)
        for (int kv_head = 0; kv_head < a.cache.num_kv_heads; kv_head++)
            for (int group = 0; group < num_groups(a, work, sequence); group++)
                visit(number++, sequence, kv_head, group);
    return number;
}

// Too few items to keep the threads busy: their splits are spread too, and merged after a barrier, in the same order.
static void attend_by_splits(const sl_attention &a, Work &work) {
    Softmax *parts = work.scratch.partials;
    AttentionItem item;
    int place = 0;
    for_each_item(a, work, [&](int, int sequence, int kv_head, int group) {
        gather_item(a, work, item, sequence, kv_head, group);
        for (int split = 0; split < num_splits(item); split++, place++)
            if (place % work.num_threads == work.thread) compute_split(a, work, item, split, parts[place]);
    });
    wait_at(work.barrier);
    place = 0;
    for_each_item(a, work, [&](int number, int sequence, int kv_head, int group) {
        gather_item(a, work, item, sequence, kv_head, group);
        Softmax &whole = parts[place];
        if (number % work.num_threads == work.thread) {
            for (int split = 1; split < num_splits(item); split++)
                merge(item, split, a.cache.head_dim, parts[place + split], whole);
            finish(a, work, item, whole);
        }
        place += num_splits(item);
    });
}

static int count_items(const sl_attention &a, const Work &work) {
    int items = 0;
    for (int sequence = 0; sequence < work.count(SL_SEQUENCES); sequence++)
        items += a.cache.num_kv_heads * num_groups(a, work, sequence);
    return items;
}

static int longest_context(const Work &work) {
    int longest = 0;
    for (int s = 0; s < work.count(SL_SEQUENCES); s++)
        longest = work.step.context_lengths[s] > longest ? work.step.context_lengths[s] : longest;
    return longest;
}

static void attention(const sl_op &op, Work &work) {
    const sl_attention &a = op.attention;
    const int items = count_items(a, work);
    const int64_t parts = (int64_t)items * (longest_context(work) / SPLIT + 1);
    if (work.num_threads > 1 && items < 2 * work.num_threads && parts > items && parts <= work.scratch.num_partials)
        return attend_by_splits(a, work);
    AttentionItem item;
    for_each_item(a, work, [&](int number, int sequence, int kv_head, int group) {
        if (number % work.num_threads != work.thread) return;
        gather_item(a, work, item, sequence, kv_head, group);
        compute_item(a, work, item);
    });
}

}  // namespace SL_TARGET
}  // namespace shardline
