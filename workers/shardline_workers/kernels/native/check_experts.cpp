// Operations of mixtures of experts.
#include "op_check.h"

namespace shardline {
namespace {

int check_routes(const Check &c, const sl_routes &r) {
    if (int s = c.want(r.expert_ids && r.weights && r.num_rows && is_size(r.max_rows),
                       "a buffer of routes is NULL, or max_rows not 1 … 2^30 - 1"))
        return s;
    if (int s = c.want(r.num_active >= 1 && r.num_active <= SL_ACTIVE_EXPERTS_MAX,
                       "a row's number of experts is not 1 … 64"))
        return s;
    // Places are int32.
    return c.want((int64_t)r.max_rows * r.num_active < SIZE_MAX_ALLOWED, "max_rows · num_active is not below 2^30");
}

int check_num_experts(const Check &c, int32_t num_experts) {
    return c.want(num_experts >= 1 && num_experts <= SL_EXPERTS_MAX, "num_experts is not 1 … 1024");
}

int check_groups(const Check &c) {
    const sl_route &r = c.op.route;
    if (int s = c.want(r.num_groups >= 1 && r.num_groups <= r.num_experts && r.num_experts % r.num_groups == 0,
                       "num_groups does not divide num_experts"))
        return s;
    if (int s = c.want(r.num_active_groups >= 1 && r.num_active_groups <= r.num_groups,
                       "num_active_groups is not 1 … num_groups"))
        return s;
    return c.want(r.routes.num_active <= r.num_experts / r.num_groups * r.num_active_groups,
                  "a row takes more experts than it can choose from");
}

int check_dealt(const Check &c, const sl_dealt_rows &d) {
    if (int s = c.want(d.starts && d.rows && d.weights && d.places && d.active && d.num_active,
                       "a table of dealt rows is NULL"))
        return s;
    if (int s = check_num_experts(c, d.num_experts)) return s;
    return check_panels(c, d.panels, d.panels.num_inputs);
}

// All have the sizes of the first one.
int check_expert(const Check &c, const sl_expert &expert) {
    const sl_experts &e = c.op.experts;
    if (int s = check_input(c, e.dealt.panels, expert.gate_up)) return s;
    if (int s = check_input(c, e.activated, expert.down)) return s;
    if (int s = c.want(expert.gate_up.num_outputs == 2 * TILE * num_tiles(e.activated.num_inputs),
                       "gate and up have not 32 · ceil(width / 16) outputs"))
        return s;
    return c.want(expert.down.num_outputs == e.experts[0].down.num_outputs,
                  "experts have different numbers of outputs");
}

}  // namespace

int check_route(const Check &c) {
    const sl_route &r = c.op.route;
    if (int s = check_routes(c, r.routes)) return s;
    if (int s = check_num_experts(c, r.num_experts)) return s;
    if (int s = c.want(r.x && r.x_stride >= r.width && is_size(r.x_stride) && is_size(r.width),
                       "x is NULL, width not 1 … 2^30 - 1, or the stride too small"))
        return s;
    if (int s = c.want(r.router && r.logits, "router or logits is NULL")) return s;
    if (int s = c.want(r.scoring >= 0 && r.scoring < SL_SCORING_COUNT, "scoring is unknown")) return s;
    if (int s = c.want(std::isfinite(r.scale), "scale is no number")) return s;
    if (int s = c.want(c.op.rows == SL_TOKENS, "rows must be SL_TOKENS")) return s;
    if (r.routes.max_rows < c.needs.routed_tokens) c.needs.routed_tokens = r.routes.max_rows;
    return check_groups(c);
}

int check_deal_rows(const Check &c) {
    const sl_deal_rows &d = c.op.deal_rows;
    if (int s = check_routes(c, d.routes)) return s;
    if (int s = check_dealt(c, d.dealt)) return s;
    if (int s = c.want(d.x && d.x_stride >= d.dealt.panels.num_inputs && is_size(d.x_stride),
                       "x is NULL or its stride too small"))
        return s;
    if (int s = c.want(is_aligned(d.row_panels), "row_panels are NULL or not aligned to 64 bytes")) return s;
    return c.want(d.id_to_number && is_size(d.num_ids), "id_to_number is NULL, or num_ids not 1 … 2^30 - 1");
}

int check_experts(const Check &c) {
    const sl_experts &e = c.op.experts;
    if (int s = check_routes(c, e.routes)) return s;
    if (int s = check_dealt(c, e.dealt)) return s;
    if (int s = check_activation(c, e.activation)) return s;
    if (int s = c.want(e.experts, "experts are NULL")) return s;
    for (int32_t i = 0; i < e.dealt.num_experts; i++)
        if (int s = check_expert(c, e.experts[i])) return s;
    const int64_t rows = (int64_t)e.routes.max_rows * e.routes.num_active;
    if (rows > c.needs.expert_rows) c.needs.expert_rows = rows;
    return c.want(e.delta && e.delta_stride >= e.experts[0].down.num_outputs && is_size(e.delta_stride),
                  "delta is NULL or its stride too small");
}

}  // namespace shardline
