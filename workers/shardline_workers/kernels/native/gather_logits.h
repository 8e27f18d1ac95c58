// What a rank does by itself before logits come together: finds the greatest of its own. Rank 0, which hears what the
// others tell, takes its own over. See told_logits.h, exchange.cpp.
#pragma once
#include "choose.h"
#include "told_logits.h"

namespace shardline {
namespace SL_TARGET {

static int first_nan_of(const float *logits, int vocab) {
    int id = 0;
    while (id < vocab && logits[id] == logits[id]) id++;
    return id;
}

// A NaN is told as often as there are candidates: that there is one is all that counts.
static void find_candidates(const float *logits, int vocab, int count, sl_candidate *out) {
    const int nan = first_nan_of(logits, vocab);
    int64_t ids[SL_CANDIDATES_MAX];
    double tops[SL_CANDIDATES_MAX];
    if (nan == vocab) find_top(logits, vocab, count, ids, tops);
    for (int i = 0; i < count; i++) {
        const int id = nan == vocab ? (int)ids[i] : nan;
        out[i] = {logits[id], id};
    }
}

static void find_greatest_candidate(const float *logits, int vocab, sl_candidate *out) {
    const Greatest greatest = find_greatest(logits, vocab);
    if (!greatest.usable) return find_candidates(logits, vocab, 1, out);
    *out = {greatest.logit, first_id_of(logits, vocab, greatest.logit)};
}

static void take_own(const sl_gather_logits &g, int64_t row) {
    float *out = g.out + row * g.out_stride;
    int size = g.rank_sizes[0];
    memcpy(out, g.x + row * g.x_stride, sizeof(float) * (size_t)size);
    for (int rank = 1; rank < g.num_ranks; rank++) {
        out += size;
        size = g.rank_sizes[rank];
        if (!num_told(g, rank, row)) continue;
        for (int id = 0; id < size; id += TILE) store_some(out + id, set(-INFINITY), size - id);
    }
}

static void gather_logits(const sl_op &op, Work &work) {
    const sl_gather_logits &g = op.gather_logits;
    const int begin = work.begin(work.count(SL_SAMPLED)), end = work.end(work.count(SL_SAMPLED));
    sl_candidate *candidates = g.candidates + candidates_before(g, g.rank, begin);
    for (int row = begin; row < end; row++) {
        if (g.rank == 0) {
            take_own(g, row);
            continue;
        }
        const float *logits = g.x + row * g.x_stride;
        const int count = (int)num_told(g, g.rank, row), vocab = g.rank_sizes[g.rank];
        if (count == 1) find_greatest_candidate(logits, vocab, candidates);
        if (count > 1) find_candidates(logits, vocab, count, candidates);
        candidates += count;
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
