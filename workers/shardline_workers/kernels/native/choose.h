// The greedy choice, tokens that are given, and log-probabilities. A row's results depend on its own logits only.
#pragma once
#include <cmath>

#include "elementwise.h"
#include "exponential64.h"

namespace shardline {
namespace SL_TARGET {

// 16 logits from id on; those beyond the vocabulary are -inf.
static inline F load_logits(const float *logits, int id, int vocab) {
    if (vocab - id >= TILE) return load(logits + id);
    return select(first_lanes(vocab - id), load_some(logits + id, vocab - id), set(-INFINITY));
}

struct Greatest {
    float logit;
    bool usable;  // finite, and no NaN in the row
};

static Greatest find_greatest(const float *logits, int vocab) {
    F greatest = set(-INFINITY);
    I magnitude = set_int(0);  // as integers: greater than that of infinity only for NaN
    for (int id = 0; id < vocab; id += TILE) {
        const F v = load_logits(logits, id, vocab);
        greatest = max(greatest, v);
        magnitude = max(magnitude, bit_and(bits(v), set_int(0x7fffffff)));
    }
    const float logit = reduce_max(greatest);
    return {logit, reduce_max(magnitude) <= 0x7f800000 && std::isfinite(logit)};
}

static int first_id_of(const float *logits, int vocab, float logit) {
    for (int id = 0; id < vocab; id += TILE) {
        const uint32_t found = lane_bits(less_equal(set(logit), load_logits(logits, id, vocab)));
        if (found) return id + __builtin_ctz(found);
    }
    return 0;
}

static void choose_greedy(const sl_op &op, Work &work) {
    const sl_choice &c = op.choice;
    for (int row = work.share; row < work.count(SL_SAMPLED); row += work.num_shares) {
        const float *logits = c.logits + row * c.logits_stride;
        const Greatest greatest = find_greatest(logits, c.vocab_size);
        c.usable[row] = greatest.usable;
        c.chosen_ids[row] = greatest.usable ? first_id_of(logits, c.vocab_size, greatest.logit) : 0;
    }
}

static void choose_given(const sl_op &op, Work &work) {
    const sl_choice &c = op.choice;
    for (int i = work.begin(work.count(SL_GIVEN)); i < work.end(work.count(SL_GIVEN)); i++)
        c.chosen_ids[c.given_rows[i]] = c.given_ids[i];
}

// log Σ e^(logit - greatest)
static double log_total(const float *logits, int vocab, double greatest) {
    double total = 0;
    for (int id = 0; id < vocab; id += EXP64_CHUNK) {
        double masses[EXP64_CHUNK];
        const int count = vocab - id < EXP64_CHUNK ? vocab - id : EXP64_CHUNK;
        exp64_of(logits + id, count, greatest, 1.0, masses);
        for (int i = 0; i < count; i++) total += masses[i];
    }
    return std::log(total);
}

// Takes a token into the `count` likeliest, kept in order; it comes after equally likely ones, which have lower ids.
static void insert_top(int64_t *ids, double *logits, int count, int id, double logit) {
    int at = count - 1;
    for (; at > 0 && logits[at - 1] < logit; at--) {
        ids[at] = ids[at - 1];
        logits[at] = logits[at - 1];
    }
    ids[at] = id;
    logits[at] = logit;
}

static void find_top(const float *logits, int vocab, int count, int64_t *ids, double *tops) {
    for (int id = 0; id < count; id++) {
        tops[id] = -INFINITY;
        insert_top(ids, tops, id + 1, id, logits[id]);
    }
    for (int id = count; id < vocab;) {
        const F v = load_logits(logits, id, vocab);
        uint32_t likelier = lane_bits(less(set((float)tops[count - 1]), v));
        for (; likelier; likelier &= likelier - 1) {
            const int lane = __builtin_ctz(likelier);
            if (logits[id + lane] > tops[count - 1]) insert_top(ids, tops, count, id + lane, logits[id + lane]);
        }
        id += TILE;
    }
}

static void write_nothing(const sl_choice &c, int number) {
    c.chosen_logprobs[number] = NAN;
    for (int i = 0; i < c.num_top; i++) {
        c.top_ids[(int64_t)number * c.num_top + i] = 0;
        c.top_logprobs[(int64_t)number * c.num_top + i] = NAN;
    }
}

static void row_logprobs(const sl_choice &c, int number) {
    const int64_t row = c.logprob_rows[number], chosen = c.chosen_ids[row];
    const float *logits = c.logits + row * c.logits_stride;
    const Greatest greatest = find_greatest(logits, c.vocab_size);
    if (!greatest.usable || chosen < 0 || chosen >= c.vocab_size) return write_nothing(c, number);
    const double most = greatest.logit, total = log_total(logits, c.vocab_size, most);
    c.chosen_logprobs[number] = logits[chosen] - most - total;
    if (!c.num_top) return;
    double *tops = c.top_logprobs + (int64_t)number * c.num_top;
    find_top(logits, c.vocab_size, c.num_top, c.top_ids + (int64_t)number * c.num_top, tops);
    for (int i = 0; i < c.num_top; i++) tops[i] = tops[i] - most - total;
}

static void logprobs(const sl_op &op, Work &work) {
    for (int number = work.share; number < work.count(SL_LOGPROBS); number += work.num_shares)
        row_logprobs(op.choice, number);
}

}  // namespace SL_TARGET
}  // namespace shardline
