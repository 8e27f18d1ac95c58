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

// Never falls as the logit falls: so buckets follow each other as a sort would have them.
static inline int bucket_of(const Row &row, float logit) {
    const float at = (float)((double)(row.greatest - logit) / row.temperature) * BUCKETS_PER_NAT;
    return at >= 0 && at < (float)(NUM_BUCKETS - 1) ? (int)at : NUM_BUCKETS - 1;
}

static void fill_buckets(const Row &row, Buckets &buckets) {
    memset(&buckets, 0, sizeof buckets);
    for (int id = 0; id < row.vocab; id += EXP64_CHUNK) {
        double masses[EXP64_CHUNK];
        const int count = row.vocab - id < EXP64_CHUNK ? row.vocab - id : EXP64_CHUNK;
        exp64_of(row.logits + id, count, row.greatest, row.temperature, masses);
        for (int i = 0; i < count; i++) {
            const int bucket = bucket_of(row, row.logits[id + i]);
            buckets.counts[bucket]++;
            buckets.masses[bucket] += masses[i];
        }
    }
}

static int64_t sort_bucket(const Row &row, int bucket, Candidate *candidates) {
    int64_t count = 0;
    for (int id = 0; id < row.vocab; id++)
        if (bucket_of(row, row.logits[id]) == bucket) candidates[count++] = {row.logits[id], id};
    sort_candidates(candidates, count);
    return count;
}

// What lies above a bucket.
struct Above {
    int bucket = 0;
    int64_t count = 0;
    double mass = 0;
};

// The top_k likeliest tokens, and their mass; 1 ≤ top_k < vocab.
static Cut cut_top_k(const Row &row, const Buckets &buckets, int64_t top_k, Candidate *candidates, double &mass) {
    Above above;
    for (; above.count + buckets.counts[above.bucket] < top_k; above.bucket++) {
        above.count += buckets.counts[above.bucket];
        above.mass += buckets.masses[above.bucket];
    }
    sort_bucket(row, above.bucket, candidates);
    const int64_t last = top_k - above.count - 1;
    mass = above.mass;
    for (int64_t i = 0; i <= last; i++) mass += exp64(row.scaled(candidates[i].logit));
    return {candidates[last].logit, candidates[last].id};
}

// Of the tokens that `cut` keeps, with `total` mass together, those that have less than top_p before them.
static Cut cut_top_p(const Row &row, const Buckets &buckets, double top_p, double total, const Cut &cut, Candidate *candidates) {
    Above above;
    for (; above.bucket < NUM_BUCKETS - 1; above.bucket++) {
        const double mass = above.mass + buckets.masses[above.bucket];
        if (mass >= top_p * total) break;
        above.mass = mass;
    }
    const int64_t count = sort_bucket(row, above.bucket, candidates);
    Cut smaller = cut;
    for (int64_t i = 0; i < count && cut.keeps(candidates[i].logit, candidates[i].id); i++) {
        const bool is_likeliest = above.bucket == 0 && i == 0;
        if (!is_likeliest && above.mass >= top_p * total) break;
        smaller = {candidates[i].logit, candidates[i].id};
        above.mass += exp64(row.scaled(candidates[i].logit));
    }
    return smaller;
}

static Cut cut_row(const Row &row, int64_t top_k, double top_p, Candidate *candidates) {
    const bool cuts_k = top_k > 0 && top_k < row.vocab, cuts_p = top_p < 1;
    Cut cut;
    if (!cuts_k && !cuts_p) return cut;
    Buckets buckets;
    fill_buckets(row, buckets);
    double total = 0;
    if (cuts_k) {
        cut = cut_top_k(row, buckets, top_k, candidates, total);
    } else {
        for (double mass : buckets.masses) total += mass;
    }
    return cuts_p ? cut_top_p(row, buckets, top_p, total, cut, candidates) : cut;
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
    for (int number = work.thread; number < work.count(SL_DRAWN); number += work.num_threads) {
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
