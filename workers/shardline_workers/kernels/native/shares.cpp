#include "shares.h"

#include "expert_cost.h"
#include "layout.h"

namespace shardline {
namespace {

constexpr double SHARE_NS = 8'000;
constexpr int LEAST_PER_THREAD = 2;
constexpr int LINEAR_TILES = 2;  // of a share at least, see linear.h
constexpr int64_t MOST_SHARES = 4096;

int64_t clamped(int64_t wanted, int64_t units) {
    const int64_t most = units < MOST_SHARES ? units : MOST_SHARES;
    return wanted < most ? wanted : most;
}

// One at least: there is something to be told without rows too.
int64_t any_shares(int64_t wanted, int64_t rows) { return clamped(wanted, rows > 1 ? rows : 1); }

// As many for each thread, so that they end together when nobody disturbs them.
int64_t shares_of(int64_t total_ns, int64_t units, int num_threads) {
    const int64_t wanted = (int64_t)((double)total_ns / SHARE_NS), least = LEAST_PER_THREAD * num_threads;
    return clamped(ceil_div(wanted > least ? wanted : least, num_threads) * num_threads, units);
}

int64_t linear_shares(const sl_weight &weight, int num_rows, int unit, int num_threads) {
    const int64_t tiles = num_tiles(weight.num_outputs);
    return shares_of(product_ns(weight, tiles, num_rows), ceil_div(tiles, unit), num_threads);
}

int64_t gated_expert_shares(const sl_experts &e, int num_threads) {
    return shares_of(gated_ns(e), (int64_t)*e.dealt.num_active * num_gated_units(e), num_threads);
}

int64_t down_expert_shares(const sl_experts &e, int num_threads) {
    if (num_routed_rows(e.routes) == 0) return 0;
    return shares_of(down_ns(e), ceil_div(num_tiles(e.experts[0].down.num_outputs), DOWN_TILES), num_threads);
}

int count_items(const sl_attention &a, const sl_step &step, const Sharing &sharing) {
    int items = 0;
    for (int s = 0; s < step.header[SL_SEQUENCES]; s++)
        items += a.cache.num_kv_heads * num_groups(a, step, s, sharing.item_rows[a.cache.format]);
    return items;
}

int longest_context(const sl_step &step) {
    int longest = 0;
    for (int s = 0; s < step.header[SL_SEQUENCES]; s++)
        longest = step.context_lengths[s] > longest ? step.context_lengths[s] : longest;
    return longest;
}

int64_t split_shares(const sl_attention &a, const sl_step &step, const Sharing &sharing) {
    return clamped((int64_t)count_items(a, step, sharing) * (longest_context(step) / SPLIT + 1), MOST_SHARES);
}

// Tokens and experts that logits are computed of at once, see route.h.
int64_t route_units(const sl_route &r, int num_rows) {
    return ceil_div(num_rows, ROUTED_ROWS) * ceil_div(r.num_experts, ROUTED_EXPERTS);
}

constexpr int ITEMS_PER_THREAD = 8;  // shares of an operation on rows or items, for each thread

int64_t attention_shares(const sl_attention &a, const sl_step &step, const Sharing &sharing) {
    if (attends_by_splits(a, step, sharing)) return split_shares(a, step, sharing);
    return clamped(ITEMS_PER_THREAD * sharing.num_threads, count_items(a, step, sharing));
}

int64_t first_phase(const sl_op &op, const sl_step &step, const Sharing &sharing) {
    const int num_threads = sharing.num_threads;
    const int64_t rows = step.header[op.rows], most = ITEMS_PER_THREAD * num_threads;
    switch (op.kind) {
        case SL_OP_LINEAR: return linear_shares(op.linear.weight, (int)rows, LINEAR_TILES, num_threads);
        case SL_OP_GATED_LINEAR: return linear_shares(op.gated_linear.weight, (int)rows, GATED_TILES, num_threads);
        case SL_OP_ATTENTION: return attention_shares(op.attention, step, sharing);
        case SL_OP_SOFT_CAP: return clamped(most, ceil_div(op.soft_cap.width, TILE));
        case SL_OP_CHOOSE_DRAWN: return clamped(most, step.header[SL_DRAWN]);
        case SL_OP_LOGPROBS: return clamped(most, step.header[SL_LOGPROBS]);
        case SL_OP_ADJUST_LOGITS:
        case SL_OP_RESTORE_LOGITS: return clamped(most, step.header[SL_ADJUSTED]);
        case SL_OP_CHOOSE_GIVEN: return clamped(1, step.header[SL_GIVEN]);
        case SL_OP_ROUTE: return clamped(most, route_units(op.route, (int)rows));
        case SL_OP_DEAL_ROWS: return any_shares(LEAST_PER_THREAD * num_threads, num_routed_rows(op.deal_rows.routes));
        case SL_OP_EXPERTS: return gated_expert_shares(op.experts, num_threads);
        case SL_OP_ALL_REDUCE:
        case SL_OP_SEND:
        case SL_OP_RECEIVE: return clamped(1, rows);
        default: return clamped(LEAST_PER_THREAD * num_threads, rows);
    }
}

int64_t second_phase(const sl_op &op, const sl_step &step, const Sharing &sharing) {
    const int num_threads = sharing.num_threads;
    const int64_t rows = step.header[op.rows], most = ITEMS_PER_THREAD * num_threads;
    switch (op.kind) {
        case SL_OP_ATTENTION:
            return attends_by_splits(op.attention, step, sharing) ? count_items(op.attention, step, sharing) : 0;
        case SL_OP_ROUTE: return any_shares(LEAST_PER_THREAD * num_threads, rows);
        case SL_OP_DEAL_ROWS: return clamped(most, num_places(op.deal_rows.dealt));
        case SL_OP_EXPERTS: return down_expert_shares(op.experts, num_threads);
        case SL_OP_GATHER_LOGITS: return clamped(1, rows);
        default: return 0;
    }
}

}  // namespace

int num_groups(const sl_attention &a, const sl_step &step, int sequence, int item_rows) {
    const int tokens = step.query_starts[sequence + 1] - step.query_starts[sequence];
    return (tokens * (a.num_heads / a.cache.num_kv_heads) + item_rows - 1) / item_rows;
}

bool attends_by_splits(const sl_attention &a, const sl_step &step, const Sharing &sharing) {
    if (sharing.num_threads == 1) return false;
    const int items = count_items(a, step, sharing);
    const int64_t parts = (int64_t)items * (longest_context(step) / SPLIT + 1);
    return items < 2 * sharing.num_threads && parts > items && parts <= sharing.num_partials;
}

int num_shares(const sl_op &op, int phase, const sl_step &step, const Sharing &sharing) {
    const int64_t shares = phase == 0 ? first_phase(op, step, sharing) : second_phase(op, step, sharing);
    return (int)(sharing.num_threads == 1 && shares > 1 ? 1 : shares);
}

}  // namespace shardline
