// Which experts a token takes. Its logits are float32, in sixteen partial sums; all that follows is float64. Nothing
// depends on other tokens.
#pragma once
#include <cmath>

#include "elementwise.h"
#include "expert_cost.h"
#include "exponential64.h"
#include "product.h"

namespace shardline {
namespace SL_TARGET {

// ---- logits ----

// Beside ROUTED_ROWS tokens: as many sums as lie in registers.
#ifdef __AVX512F__
constexpr int EXPERTS_AT_ONCE = 4;
#else
constexpr int EXPERTS_AT_ONCE = 2;
#endif

// sums += inputs · weights, sixteen inputs at once.
template <int R, int E, class Load>
static inline void add_products(F (&sums)[R][E], const float *x, int64_t x_stride, const float *router, int64_t width,
                                Load load_inputs) {
    F inputs[R];
    SL_UNROLL
    for (int m = 0; m < R; m++) inputs[m] = load_inputs(x + m * x_stride);
    SL_UNROLL
    for (int e = 0; e < E; e++) {
        const F weights = load_inputs(router + e * width);
        SL_UNROLL
        for (int m = 0; m < R; m++) sums[m][e] = fma(inputs[m], weights, sums[m][e]);
    }
}

template <int R, int E>
static void route_logits(const sl_route &r, int64_t row, int64_t expert) {
    F sums[R][E];
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int e = 0; e < E; e++) sums[m][e] = set(0);
    }
    const float *x = r.x + row * r.x_stride, *router = r.router + expert * r.width;
    const int whole = r.width / TILE * TILE, left = r.width - whole;
    for (int i = 0; i < whole; i += TILE)
        add_products(sums, x + i, r.x_stride, router + i, r.width, [](const float *p) { return load(p); });
    if (left)
        add_products(sums, x + whole, r.x_stride, router + whole, r.width,
                     [left](const float *p) { return load_some(p, left); });
    for (int m = 0; m < R; m++)
        for (int e = 0; e < E; e++) r.logits[(row + m) * r.num_experts + expert + e] = reduce_add(sums[m][e]);
}

template <int R, int E>
static void route_rows(const sl_route &r, int row, int begin, int end) {
    int expert = begin;
    for (; expert + E <= end; expert += E) route_logits<R, E>(r, row, expert);
    for (; expert < end; expert++) route_logits<R, 1>(r, row, expert);
}

static void route_unit(const sl_route &r, int num_rows, int row, int expert) {
    const int end = expert + ROUTED_EXPERTS < r.num_experts ? expert + ROUTED_EXPERTS : r.num_experts;
    if (row + ROUTED_ROWS <= num_rows) return route_rows<ROUTED_ROWS, EXPERTS_AT_ONCE>(r, row, expert, end);
    for (; row < num_rows; row++) route_rows<1, 4>(r, row, expert, end);
}

static void all_logits(const sl_route &r, const Work &work) {
    const int num_rows = work.count(SL_TOKENS), pieces = (int)ceil_div(r.num_experts, ROUTED_EXPERTS);
    const int units = (int)ceil_div(num_rows, ROUTED_ROWS) * pieces;
    for (int unit = work.begin(units); unit < work.end(units); unit++)
        route_unit(r, num_rows, unit / pieces * ROUTED_ROWS, unit % pieces * ROUTED_EXPERTS);
}

// ---- choice ----

struct Choices {
    double scores[SL_EXPERTS_MAX], values[SL_EXPERTS_MAX];  // values: scores and biases
};

static double sigmoid(double x) {
    const double small = exp64(x < 0 ? x : -x);
    return (x < 0 ? small : 1) / (1 + small);
}

static void soften(const float *logits, int count, double *scores) {
    double greatest = logits[0], total = 0;
    for (int e = 1; e < count; e++) greatest = logits[e] > greatest ? logits[e] : greatest;
    exp64_of(logits, count, greatest, 1.0, scores);
    for (int e = 0; e < count; e++) total += scores[e];
    for (int e = 0; e < count; e++) scores[e] /= total;
}

// Gives whether all are numbers.
static bool score_experts(const sl_route &r, const float *logits, Choices &c) {
    double broken = 0;  // NaN once a number is none
    for (int e = 0; e < r.num_experts; e++) broken += logits[e] * 0.0;
    if (broken != 0) return false;
    if (r.scoring == SL_SOFTMAX) soften(logits, r.num_experts, c.scores);
    for (int e = 0; e < r.num_experts; e++) {
        if (r.scoring == SL_SIGMOID) c.scores[e] = sigmoid(logits[e]);
        c.values[e] = c.scores[e] + (r.bias ? r.bias[e] : 0.0);
        broken += c.values[e] * 0.0;
    }
    return broken == 0;
}

// The greatest of what was offered, in falling order; of equal ones what was offered first comes first.
struct BestOf {
    int count = 0;
    int numbers[SL_EXPERTS_MAX];
    double values[SL_EXPERTS_MAX];

    void offer(int number, double value, int most) {
        if (count == most && !(value > values[count - 1])) return;
        int at = count < most ? count++ : count - 1;
        for (; at > 0 && values[at - 1] < value; at--) {
            numbers[at] = numbers[at - 1];
            values[at] = values[at - 1];
        }
        numbers[at] = number;
        values[at] = value;
    }
};

// Of a group: its two greatest choices, or its only one.
static double group_sum(const double *values, int count) {
    BestOf two;
    for (int e = 0; e < count; e++) two.offer(e, values[e], 2);
    return two.values[0] + (count > 1 ? two.values[1] : 0);
}

// The experts that are chosen, from the best groups alone.
static void choose_best(const sl_route &r, const Choices &c, BestOf &experts) {
    const int size = r.num_experts / r.num_groups;
    BestOf groups;
    for (int g = 0; g < r.num_groups; g++)
        groups.offer(g, r.num_groups > 1 ? group_sum(c.values + g * size, size) : 0, r.num_active_groups);
    bool is_open[SL_EXPERTS_MAX] = {};
    for (int i = 0; i < groups.count; i++) is_open[groups.numbers[i]] = true;
    for (int e = 0; e < r.num_experts; e++)
        if (is_open[e / size]) experts.offer(e, c.values[e], r.routes.num_active);
}

static void write_routes(const sl_route &r, const Choices &c, const BestOf &experts, int64_t first) {
    double total = 0;
    for (int i = 0; i < experts.count; i++) total += c.scores[experts.numbers[i]];
    for (int i = 0; i < experts.count; i++) {
        const double score = c.scores[experts.numbers[i]];
        r.routes.expert_ids[first + i] = experts.numbers[i];
        r.routes.weights[first + i] = (float)((r.renormalises ? score / total : score) * (double)r.scale);
    }
}

static void route_token(const sl_route &r, int row) {
    const int num_active = r.routes.num_active;
    const int64_t first = (int64_t)row * num_active;
    Choices choices;
    if (score_experts(r, r.logits + (int64_t)row * r.num_experts, choices)) {
        BestOf experts;
        choose_best(r, choices, experts);
        write_routes(r, choices, experts, first);
    } else {
        for (int i = 0; i < num_active; i++) r.routes.expert_ids[first + i] = i, r.routes.weights[first + i] = NAN;
    }
    for (int i = 0; r.counts && i < num_active; i++)
        __atomic_fetch_add(r.counts + r.routes.expert_ids[first + i], 1, __ATOMIC_RELAXED);
}

// Logits in the first phase, choices in the second.
static void route(const sl_op &op, Work &work) {
    const sl_route &r = op.route;
    if (work.phase == 0) return all_logits(r, work);
    const int num_rows = work.count(SL_TOKENS);
    if (work.share == 0) *r.routes.num_rows = num_rows;
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++) route_token(r, row);
}

}  // namespace SL_TARGET
}  // namespace shardline
