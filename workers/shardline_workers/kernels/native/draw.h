// One token by chance: temperature, top-k, top-p, min-p in this order, then Gumbel-max with counter-based noise.
//
// The meaning is that of kernels/reference_sampling.py in float64, but neither a sort nor a logarithm of the whole
// vocabulary is needed:
// - Cuts. Tokens are counted in buckets of 1/32 nat below the likeliest. Only the bucket in which a cut falls is sorted.
//   A cut is kept as the last token that stays.
// - Draw. Token i can beat a score B only if its noise u has 1 - u ≤ e^(score_i - B), as log(-log u) is bounded by
//   log(1 - u). That is one hash, one cheap exponential and one comparison a token; the few that pass are computed
//   exactly.
#pragma once
#include "choose.h"

namespace shardline {
namespace SL_TARGET {

struct Row {
    const float *logits;
    int vocab;
    float greatest;
    double temperature;

    double scaled(float logit) const { return ((double)logit - (double)greatest) / temperature; }
};

// ---- cuts ----

struct Cut {
    float logit = -INFINITY;  // of the last token that stays
    int id = INT32_MAX;

    bool keeps(float other, int other_id) const { return other > logit || (other == logit && other_id <= id); }
};

constexpr int NUM_BUCKETS = 1024;
constexpr float BUCKETS_PER_NAT = 32;  // the last bucket begins 32 nats below the likeliest token

struct Buckets {
    int32_t counts[NUM_BUCKETS];
    double masses[NUM_BUCKETS];
};

// Buckets of a chunk's logits. They never fall as logits fall, so buckets follow each other as a sort would have them.
static void buckets_of(const Row &row, int first, int count, int32_t *out) {
    const float scale = (float)(BUCKETS_PER_NAT / row.temperature), last = NUM_BUCKETS - 1;
    for (int i = 0; i < count; i++) {
        const float at = (row.greatest - row.logits[first + i]) * scale;
        out[i] = (int32_t)(at >= 0 && at < last ? at : last);
    }
}

template <class Visit>
static void for_each_chunk(const Row &row, Visit visit) {
    int32_t numbers[EXP64_CHUNK];
    for (int id = 0; id < row.vocab; id += EXP64_CHUNK) {
        const int count = row.vocab - id < EXP64_CHUNK ? row.vocab - id : EXP64_CHUNK;
        buckets_of(row, id, count, numbers);
        visit(id, count, numbers);
    }
}

static void count_tokens(const Row &row, Buckets &buckets) {
    memset(buckets.counts, 0, sizeof buckets.counts);
    for_each_chunk(row, [&](int, int count, const int32_t *numbers) {
        for (int i = 0; i < count; i++) buckets.counts[numbers[i]]++;
    });
}

static void add_masses(const Row &row, Buckets &buckets) {
    memset(buckets.masses, 0, sizeof buckets.masses);
    double masses[EXP64_CHUNK];
    for_each_chunk(row, [&](int id, int count, const int32_t *numbers) {
        exp64_of(row.logits + id, count, row.greatest, row.temperature, masses);
        for (int i = 0; i < count; i++) buckets.masses[numbers[i]] += masses[i];
    });
}

static int64_t sort_bucket(const Row &row, int bucket, Candidate *candidates) {
    int64_t found = 0;
    for_each_chunk(row, [&](int id, int count, const int32_t *numbers) {
        for (int i = 0; i < count; i++) {
            candidates[found] = {row.logits[id + i], id + i};  // without a branch: it stays only if it counts
            found += numbers[i] == bucket;
        }
    });
    sort_candidates(candidates, found);
    return found;
}

// The top_k likeliest tokens; 1 ≤ top_k < vocab.
static Cut cut_top_k(const Row &row, int64_t top_k, Candidate *candidates) {
    Buckets buckets;
    count_tokens(row, buckets);
    int bucket = 0;
    for (; buckets.counts[bucket] < top_k; bucket++) top_k -= buckets.counts[bucket];
    sort_bucket(row, bucket, candidates);
    return {candidates[top_k - 1].logit, candidates[top_k - 1].id};
}

// The sorted candidates that have less than `mass` before them, `before` being the mass before the first. The first stays
// in any case.
static Cut cut_mass(const Row &row, const Candidate *candidates, int64_t count, double before, double mass) {
    int64_t last = 0;
    for (before += exp64(row.scaled(candidates[0].logit)); last + 1 < count && before < mass; last++)
        before += exp64(row.scaled(candidates[last + 1].logit));
    return {candidates[last].logit, candidates[last].id};
}

// All tokens by likelihood, up to the mass top_p. The first bucket that reaches it holds a token that does.
static Cut cut_top_p(const Row &row, double top_p, Candidate *candidates) {
    Buckets buckets;
    add_masses(row, buckets);
    double total = 0, before = 0;
    for (double mass : buckets.masses) total += mass;
    int bucket = 0, last = 0;  // last: the last one that holds anything
    for (int i = 0; i < NUM_BUCKETS; i++) last = buckets.masses[i] > 0 ? i : last;
    for (; bucket < last && before + buckets.masses[bucket] < top_p * total; bucket++) before += buckets.masses[bucket];
    const int64_t count = sort_bucket(row, bucket, candidates);
    return cut_mass(row, candidates, count, before, top_p * total);
}

// The same of the tokens that a cut by top-k has left, which are few.
static Cut cut_top_p_of(const Row &row, double top_p, const Cut &cut, Candidate *candidates) {
    int64_t count = 0;
    for (int id = 0; id < row.vocab; id++) {
        candidates[count] = {row.logits[id], id};
        count += cut.keeps(row.logits[id], id);
    }
    sort_candidates(candidates, count);
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += exp64(row.scaled(candidates[i].logit));
    return cut_mass(row, candidates, count, 0, top_p * total);
}

static Cut cut_row(const Row &row, int64_t top_k, double top_p, Candidate *candidates) {
    const bool cuts_k = top_k > 0 && top_k < row.vocab, cuts_p = top_p < 1;
    if (!cuts_k) return cuts_p ? cut_top_p(row, top_p, candidates) : Cut{};
    const Cut cut = cut_top_k(row, top_k, candidates);
    return cuts_p ? cut_top_p_of(row, top_p, cut, candidates) : cut;
}

// ---- noise: see kernels/noise.py ----

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15;

static inline uint64_t noise_bits(uint64_t key, int id) {  // splitmix64
    uint64_t z = key + (uint64_t)(id + 1) * GOLDEN;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

static double gumbel(uint64_t key, int id) {
    const double uniform = ((double)(noise_bits(key, id) >> 12) + 0.5) * 0x1p-52;
    return -std::log(-std::log(uniform));
}

// At most 1 - u of 16 ids, cut to 24 bits.
static inline F noise_gaps(uint64_t key, int first_id) {
    alignas(64) float gaps[TILE];
    for (int i = 0; i < TILE; i++) gaps[i] = (float)(int32_t)(~noise_bits(key, first_id + i) >> 40) * 0x1p-24f;
    return load(gaps);
}

// ---- draw ----

struct Best {
    double score;
    int id;
    float factor;  // a little less than e^score

    void take(double other, int other_id) {
        score = other;
        id = other_id;
        factor = (float)std::exp(other) * 0.9999f;
    }
};

static int draw(const Row &row, int likeliest, const Cut &cut, double min_p, uint64_t key) {
    const double floor = std::log(min_p);
    const F shrink = set((float)(1 / row.temperature) * LOG2_E);
    Best best{};
    best.take(gumbel(key, likeliest), likeliest);
    for (int id = 0; id < row.vocab; id += TILE) {
        const F masses = exp2(mul(sub(load_logits(row.logits, id, row.vocab), set(row.greatest)), shrink));
        uint32_t hopeful = lane_bits(less_equal(mul(noise_gaps(key, id), set(best.factor)), mul(masses, set(1.0001f))));
        for (; hopeful; hopeful &= hopeful - 1) {
            const int other = id + __builtin_ctz(hopeful);
            if (other >= row.vocab || !cut.keeps(row.logits[other], other)) continue;
            const double scaled = row.scaled(row.logits[other]);
            if (scaled < floor) continue;
            const double score = scaled + gumbel(key, other);
            if (score > best.score || (score == best.score && other < best.id)) best.take(score, other);
        }
    }
    return best.id;
}

static void choose_drawn(const sl_op &op, Work &work) {
    const sl_choice &c = op.choice;
    for (int number = work.share; number < work.count(SL_DRAWN); number += work.num_shares) {
        const int64_t r = c.drawn_rows[number];
        const float *logits = c.logits + r * c.logits_stride;
        const Greatest greatest = find_greatest(logits, c.vocab_size);
        if (!greatest.usable) {
            c.chosen_ids[r] = 0;
            continue;
        }
        const Row row{logits, c.vocab_size, greatest.logit, c.temperatures[r]};
        Cut cut;
        if (number < work.count(SL_CUT)) cut = cut_row(row, c.top_ks[r], c.top_ps[r], work.scratch.candidates);
        const int likeliest = first_id_of(logits, c.vocab_size, greatest.logit);
        c.chosen_ids[r] = draw(row, likeliest, cut, c.min_ps[r], (uint64_t)c.noise_keys[r]);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
