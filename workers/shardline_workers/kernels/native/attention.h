// Paged attention (Kwon et al. 2023) as two small products on pages that are packed like weights: scores = queries ·
// keysᵀ and out = weights · values run in the same inner loop as linear layers, without gathers and horizontal sums.
//
// Up to 6 rows (a token's query head each) that share a key head are taken together, page by page; 32 where matrix
// instructions multiply. Keys are cut into
// splits of 256 positions; a row's splits are merged in their order, whether one thread computes them one after the
// other or several side by side. So decode, chunks of a prompt and any batch give a row the same bits. With a window,
// pages that no row of an item sees are passed over; a row leaves alone what only its neighbours see.
#pragma once
#ifdef SL_AMX
#include "attention_page_amx.h"
#else
#include "attention_page_bf16.h"
#endif
#include "attention_page_int8.h"
#include "quantise.h"
#include "shares.h"
#include "work.h"

namespace shardline {
namespace SL_TARGET {

// Token and query head of row i of an item.
static int token_of(const sl_attention &a, const Work &work, const AttentionItem &item, int i) {
    return work.step.query_starts[item.sequence] + (item.first + i) / (a.num_heads / a.cache.num_kv_heads);
}
static int head_of(const sl_attention &a, const AttentionItem &item, int i) {
    const int group = a.num_heads / a.cache.num_kv_heads;
    return item.kv_head * group + (item.first + i) % group;
}

// The query heads of an item in the format that its page's keys are multiplied by.
static void gather_queries(const sl_attention &a, const Work &work, AttentionItem &item) {
    const int size = a.cache.head_dim;
    const sl_panels panels = {SL_INT8, size, item.panel};
    for (int i = 0; i < item.count; i++) {
        const int64_t token = token_of(a, work, item, i), head = head_of(a, item, i);
        const uint16_t *query = a.queries + (token * a.num_heads + head) * size;
        if (a.cache.format == SL_KV_BF16) {
            put_query(item, i, query, size);
            continue;
        }
        alignas(64) float wide[HEAD_DIM_MAX];
        for (int d = 0; d < size; d += TILE) store(wide + d, load_bf16(query + d));
        for (int64_t d = 0; d < size; d += GROUP)
            put_some(panels, {item.panel, item.count, i}, d / GROUP, wide + d, size - d);
    }
}

// Its part of the block that holds a key, and how many of its keys are seen.
static NextPage page_at(const sl_attention &a, const Work &work, const AttentionItem &item, int key) {
    const sl_kv_cache &cache = a.cache;
    const int number = key / cache.block_size, left = item.end - number * cache.block_size + 1;
    const int64_t block = work.step.block_tables[work.step.slots[item.sequence] * work.max_blocks + number];
    const uint8_t *blocks = static_cast<const uint8_t *>(cache.blocks) + item.kv_head * head_bytes(cache);
    return {blocks + block * kv_block_bytes(cache), left < cache.block_size ? left : cache.block_size};
}

static void gather_item(const sl_attention &a, const Work &work, AttentionItem &item, int sequence, int kv_head,
                        int group) {
    const int starts = work.step.query_starts[sequence], tokens = work.step.query_starts[sequence + 1] - starts;
    const int rows = tokens * (a.num_heads / a.cache.num_kv_heads), most = ITEM_ROWS[a.cache.format];
    item.sequence = sequence;
    item.kv_head = kv_head;
    item.first = group * most;
    item.count = rows - item.first < most ? rows - item.first : most;
    for (int i = 0; i < item.count; i++) {
        const int token = token_of(a, work, item, i);
        item.last[i] = work.step.context_lengths[sequence] - tokens + (token - starts);
        item.from[i] = a.window && item.last[i] >= a.window ? item.last[i] - a.window + 1 : 0;
    }
    item.begin = item.from[0];
    item.end = item.last[item.count - 1];
    item.following = page_at(a, work, item, item.begin);
    gather_queries(a, work, item);
}

static void clear(Softmax &softmax, int count, int size) {
    for (int i = 0; i < count; i++) softmax.greatest[i] = NOTHING, softmax.total[i] = 0;
    memset(softmax.sums, 0, sizeof(float) * (size_t)(count * size));
}

// Splits first_split … last_split hold what an item sees.
static int first_split(const AttentionItem &item) { return item.begin / SPLIT; }
static int last_split(const AttentionItem &item) { return item.end / SPLIT; }

static void compute_split(const sl_attention &a, const Work &work, const AttentionItem &item, int split,
                          Softmax &softmax) {
    const sl_kv_cache &cache = a.cache;
    const int begin = item.begin / cache.block_size * cache.block_size;
    const int first_key = begin > split * SPLIT ? begin : split * SPLIT;
    const int last_key = item.end < (split + 1) * SPLIT - 1 ? item.end : (split + 1) * SPLIT - 1;
    clear(softmax, item.count, cache.head_dim);
    [[maybe_unused]] const PageRegisters registers(item.count);
    for (int key = first_key; key <= last_key; key += cache.block_size) {
        const NextPage page = page_at(a, work, item, key);
        const bool is_last = key + cache.block_size > item.end;
        const NextPage next = is_last ? item.following : page_at(a, work, item, key + cache.block_size);
        const Page view = {page.keys, page.keys + key_bytes(cache), key, page.visible, next};
        if (cache.format == SL_KV_INT8) add_int8_page(a, item, view, softmax);
        else add_bf16_page(a, item, view, softmax);
    }
}

// whole = whole and then part, for the rows that see keys of the part.
static void merge(const AttentionItem &item, int split, int size, const Softmax &part, Softmax &whole) {
    for (int i = 0; i < item.count; i++) {
        if (item.last[i] < split * SPLIT || item.from[i] >= (split + 1) * SPLIT) continue;
        float *sums = whole.sums + i * size;
        const float *more = part.sums + i * size;
        if (item.from[i] >= split * SPLIT) {  // the first part that this row sees
            whole.greatest[i] = part.greatest[i];
            whole.total[i] = part.total[i];
            memcpy(sums, more, sizeof(float) * (size_t)size);
            continue;
        }
        const float greatest = whole.greatest[i] > part.greatest[i] ? whole.greatest[i] : part.greatest[i];
        const float old = exp2(whole.greatest[i] - greatest), fresh = exp2(part.greatest[i] - greatest);
        whole.greatest[i] = greatest;
        whole.total[i] = whole.total[i] * old + part.total[i] * fresh;
        for (int d = 0; d < size; d += TILE)
            store(sums + d, fma(load(sums + d), set(old), mul(load(more + d), set(fresh))));
    }
}

// What a row's sums are multiplied by, so that its weights, and that of its sink, sum to 1.
static float normaliser(const sl_attention &a, const Softmax &softmax, int row, int head) {
    if (!a.sinks) return 1.f / softmax.total[row];
    const float sink = a.sinks[head] * LOG2_E, most = softmax.greatest[row], greatest = most > sink ? most : sink;
    const float rescale = exp2(most - greatest);
    return rescale / (softmax.total[row] * rescale + exp2(sink - greatest));
}

static void finish(const sl_attention &a, const Work &work, const AttentionItem &item, const Softmax &softmax) {
    const int size = a.cache.head_dim;
    const PanelSplit split(a.panels.kind, work.count(SL_TOKENS));
    for (int i = 0; i < item.count; i++) {
        const int token = token_of(a, work, item, i), head = head_of(a, item, i), column = head * size;
        const float *sums = softmax.sums + i * size;
        const F inverse = set(normaliser(a, softmax, i, head));
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
    compute_split(a, work, item, first_split(item), whole);
    for (int split = first_split(item) + 1; split <= last_split(item); split++) {
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
            for (int group = 0; group < num_groups(a, work.step, sequence, ITEM_ROWS[a.cache.format]); group++)
                visit(number++, sequence, kv_head, group);
    return number;
}

// Phase 0 of attention by splits.
static void compute_splits(const sl_attention &a, const Work &work) {
    AttentionItem item;
    int place = 0;
    for_each_item(a, work, [&](int, int sequence, int kv_head, int group) {
        gather_item(a, work, item, sequence, kv_head, group);
        for (int split = first_split(item); split <= last_split(item); split++, place++)
            if (place % work.num_shares == work.share)
                compute_split(a, work, item, split, work.scratch.partials[place]);
    });
}

// Phase 1: an item's splits are merged in their order.
static void merge_splits(const sl_attention &a, const Work &work) {
    Softmax *parts = work.scratch.partials;
    AttentionItem item;
    int place = 0;
    for_each_item(a, work, [&](int number, int sequence, int kv_head, int group) {
        gather_item(a, work, item, sequence, kv_head, group);
        Softmax &whole = parts[place++];
        const bool is_mine = number % work.num_shares == work.share;
        for (int split = first_split(item) + 1; split <= last_split(item); split++, place++)
            if (is_mine) merge(item, split, a.cache.head_dim, parts[place], whole);
        if (is_mine) finish(a, work, item, whole);
    });
}

// Each item is gathered before the last one is computed, which then prefetches its first page.
static void attend_by_items(const sl_attention &a, Work &work) {
    AttentionItem items[2];
    int taken = 0;
    for_each_item(a, work, [&](int number, int sequence, int kv_head, int group) {
        if (number % work.num_shares != work.share) return;
        AttentionItem &item = items[taken % 2], &before = items[(taken + 1) % 2];
        gather_item(a, work, item, sequence, kv_head, group);
        if (taken++) {
            before.following = item.following;
            compute_item(a, work, before);
        }
    });
    if (taken) compute_item(a, work, items[(taken - 1) % 2]);
}

static void attention(const sl_op &op, Work &work) {
    const sl_attention &a = op.attention;
    if (work.phase == 1) return merge_splits(a, work);
    const Sharing sharing{work.num_threads, work.scratch.num_partials, ITEM_ROWS};
    if (attends_by_splits(a, work.step, sharing)) return compute_splits(a, work);
    attend_by_items(a, work);
}

}  // namespace SL_TARGET
}  // namespace shardline
