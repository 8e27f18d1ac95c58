#include "op_check.h"

namespace shardline {
namespace {

int check_embedding(const Check &c) {
    const sl_embedding &e = c.op.embedding;
    if (int s = check_weight(c, e.table)) return s;
    if (int s = c.want(e.out && e.out_stride >= e.table.num_inputs && is_size(e.out_stride),
                       "out is NULL or its stride too small"))
        return s;
    if (int s = c.want(std::isfinite(e.scale), "scale is no number")) return s;
    if (int s = c.want(c.op.rows == SL_TOKENS, "rows must be SL_TOKENS")) return s;
    if (int s = c.want(is_first_id(e.first_id, e.is_part), "is_part is not 0 or 1, or first_id does not fit it"))
        return s;
    c.needs.token_ids = true;
    if (!e.is_part && e.table.num_outputs < c.needs.vocab_size) c.needs.vocab_size = e.table.num_outputs;
    return SL_OK;
}

int check_norm(const Check &c) {
    const sl_norm &n = c.op.norm;
    if (int s = c.want(n.residual && is_size(n.width), "residual is NULL, or width not 1 … 2^30 - 1")) return s;
    if (int s = c.want(std::isfinite(n.epsilon) && n.epsilon >= 0, "epsilon is no number from 0")) return s;
    const bool is_wanted = n.out || n.panels.bytes;
    if (int s = c.want(is_wanted || (n.delta && c.op.rows == SL_TOKENS), "neither out nor panels are wanted")) return s;
    if (int s = c.want(n.weight || !is_wanted, "weight is NULL")) return s;
    if (int s = c.want(!n.out || (n.out_stride >= n.width && is_size(n.out_stride)), "out's stride is too small"))
        return s;
    if (int s = c.want(n.out != n.residual || (!n.delta && c.op.rows == SL_TOKENS),
                       "out may be residual only without delta and gather"))
        return s;
    if (int s = c.want(n.delta || !n.delta_weight, "delta_weight is there without delta")) return s;
    c.needs.sampled_rows |= c.op.rows == SL_SAMPLED;
    return check_optional_panels(c, n.panels, n.width);
}

int check_quantise(const Check &c) {
    const sl_quantise &q = c.op.quantise;
    if (int s = c.want(q.x && q.x_stride >= q.panels.num_inputs && is_size(q.x_stride),
                       "x is NULL or its stride too small"))
        return s;
    return check_panels(c, q.panels, q.panels.num_inputs);
}

int check_linear(const Check &c) {
    const sl_linear &l = c.op.linear;
    if (int s = check_input(c, l.x, l.weight)) return s;
    c.needs.linear = true;
    return c.want(l.out && l.out_stride >= l.weight.num_outputs && is_size(l.out_stride),
                  "out is NULL or its stride too small");
}

int check_gated_linear(const Check &c) {
    const sl_gated_linear &g = c.op.gated_linear;
    if (int s = check_activation(c, g.activation)) return s;
    if (int s = check_input(c, g.x, g.weight)) return s;
    if (int s = check_panels(c, g.panels, g.panels.num_inputs)) return s;
    c.needs.linear = true;
    return c.want(g.weight.num_outputs == 2 * TILE * num_tiles(g.panels.num_inputs),
                  "weight has not 32 · ceil(size / 16) outputs");
}

int check_gated_activation(const Check &c) {
    const sl_gated_activation &g = c.op.gated_activation;
    if (int s = c.want(g.gate_up && is_size(g.size), "gate_up is NULL, or size not 1 … 2^30 - 1")) return s;
    if (int s = check_activation(c, g.activation)) return s;
    if (int s = c.want(g.out || g.panels.bytes, "neither out nor panels are wanted")) return s;
    return check_optional_panels(c, g.panels, g.size);
}

// A cache and the heads that read it.
int check_heads(const Check &c, const sl_kv_cache &cache, int32_t num_heads) {
    if (int s = check_cache(cache)) return s;
    if (int s = c.want(is_aligned(cache.blocks), "cache's blocks are NULL or not aligned to 64 bytes")) return s;
    if (int s = c.want(num_heads >= 1 && num_heads <= 65536 && num_heads % cache.num_kv_heads == 0,
                       "num_heads is no multiple of num_kv_heads"))
        return s;
    StepNeeds &needs = c.needs;
    if (int s = c.want(!needs.block_size || needs.block_size == cache.block_size, "caches have different block sizes"))
        return s;
    needs.block_size = cache.block_size;
    if (cache.num_blocks < needs.num_blocks) needs.num_blocks = cache.num_blocks;
    return c.want(c.op.rows == SL_TOKENS, "rows must be SL_TOKENS");
}

int check_rotate_store(const Check &c) {
    const sl_rotate_store &r = c.op.rotate_store;
    if (int s = check_heads(c, r.cache, r.num_heads)) return s;
    if (int s = c.want(r.shares_values == 0 || r.shares_values == 1, "shares_values is neither 0 nor 1")) return s;
    const int64_t heads = r.num_heads + (int64_t)(r.shares_values ? 1 : 2) * r.cache.num_kv_heads,
                  width = heads * r.cache.head_dim;
    if (int s = c.want(r.qkv && r.queries && r.qkv_stride >= width && is_size(r.qkv_stride),
                       "qkv or queries is NULL, or the stride too small"))
        return s;
    if (int s = c.want(r.cosines && r.sines && is_size(r.max_len), "angles are NULL, or max_len not 1 … 2^30 - 1"))
        return s;
    const bool is_even = r.rotary_dim >= 2 && r.rotary_dim % 2 == 0 && r.rotary_dim <= r.cache.head_dim;
    if (int s = c.want(is_even, "rotary_dim is not even and from 2 to head_dim")) return s;
    if (int s = c.want(std::isfinite(r.epsilon) && r.epsilon >= 0, "epsilon is no number from 0")) return s;
    c.needs.places = true;
    if (r.max_len < c.needs.max_len) c.needs.max_len = r.max_len;
    return c.want(r.pairing == SL_HALVES || r.pairing == SL_NEIGHBOURS, "pairing is unknown");
}

int check_attention(const Check &c) {
    const sl_attention &a = c.op.attention;
    if (int s = check_heads(c, a.cache, a.num_heads)) return s;
    if (int s = c.want(a.queries && (a.out || a.panels.bytes),
                       "queries are NULL, or neither out nor panels are wanted"))
        return s;
    if (int s = c.want(std::isfinite(a.scale), "scale is no number")) return s;
    if (int s = c.want(a.window >= 0, "window is negative")) return s;
    if (int s = c.want(std::isfinite(a.softcap) && a.softcap >= 0, "softcap is no number from 0")) return s;
    if (int s = c.want(!a.panels.bytes || a.cache.head_dim % GROUP == 0,
                       "panels want a head_dim that is a multiple of 32"))
        return s;
    c.needs.sequences = c.needs.attention = true;
    return check_optional_panels(c, a.panels, (int64_t)a.num_heads * a.cache.head_dim);
}

int check_gather(const Check &c) {
    const sl_gather &g = c.op.gather;
    c.needs.sampled_rows = true;
    return c.want(g.x && g.out && g.x != g.out && is_size(g.width),
                  "x or out is NULL or both are one, or width not 1 … 2^30 - 1");
}

int check_adjustments(const Check &c) {
    const sl_choice &v = c.op.choice;
    const sl_adjustments &a = v.adjustments;
    if (int s = c.want(v.adjusted_rows && v.adjusted_slots && v.repetition_penalties && v.frequency_penalties &&
                           v.presence_penalties && a.lengths && a.ids && a.biases && a.occurrences && a.raw_logits,
                       "a buffer of adjustments is NULL"))
        return s;
    if (int s = c.want(is_first_id(v.first_id, v.is_part), "is_part is not 0 or 1, or first_id does not fit it"))
        return s;
    c.needs.adjusted = &v;
    return c.want(is_size(a.width), "width is not 1 … 2^30 - 1");
}

int check_choice(const Check &c) {
    const sl_choice &v = c.op.choice;
    if (int s = c.want(v.logits && is_size(v.vocab_size) && v.logits_stride >= v.vocab_size && is_size(v.logits_stride),
                       "logits are NULL, or their sizes wrong"))
        return s;
    if (int s = c.want(v.chosen_ids && v.usable, "chosen_ids or usable is NULL")) return s;
    if (c.op.kind == SL_OP_CHOOSE_GREEDY) return SL_OK;
    if (c.op.kind == SL_OP_CHOOSE_GIVEN) {
        c.needs.given = &v;
        return c.want(v.given_rows && v.given_ids, "given_rows or given_ids is NULL");
    }
    if (c.op.kind == SL_OP_ADJUST_LOGITS || c.op.kind == SL_OP_RESTORE_LOGITS) return check_adjustments(c);
    c.needs.choice = &v;
    if (c.op.kind == SL_OP_CHOOSE_DRAWN) {
        if (v.vocab_size > c.needs.largest_choice) c.needs.largest_choice = v.vocab_size;
        return c.want(
            v.temperatures && v.top_ks && v.top_ps && v.min_ps && v.noise_keys && v.drawn_rows && v.logprob_rows,
            "a sampling buffer is NULL");
    }
    if (int s = c.want(v.drawn_rows && v.logprob_rows && v.chosen_logprobs, "a buffer of log-probabilities is NULL"))
        return s;
    if (int s = c.want(v.num_top >= 0 && v.num_top <= v.vocab_size, "num_top is not 0 … vocab_size")) return s;
    return c.want(!v.num_top || (v.top_ids && v.top_logprobs), "top_ids or top_logprobs is NULL");
}

int check_soft_cap(const Check &c) {
    const sl_soft_cap &s = c.op.soft_cap;
    if (int status = c.want(s.x && is_size(s.width) && s.x_stride >= s.width && is_size(s.x_stride),
                            "x is NULL, width not 1 … 2^30 - 1, or the stride too small"))
        return status;
    return c.want(std::isfinite(s.cap) && s.cap > 0, "cap is no number above 0");
}

int check_kind(const Check &c) {
    switch (c.op.kind) {
        case SL_OP_EMBEDDING: return check_embedding(c);
        case SL_OP_NORM: return check_norm(c);
        case SL_OP_QUANTISE: return check_quantise(c);
        case SL_OP_LINEAR: return check_linear(c);
        case SL_OP_GATED_LINEAR: return check_gated_linear(c);
        case SL_OP_GATED_ACTIVATION: return check_gated_activation(c);
        case SL_OP_ROTATE_STORE: return check_rotate_store(c);
        case SL_OP_ATTENTION: return check_attention(c);
        case SL_OP_GATHER_SAMPLED: return check_gather(c);
        case SL_OP_CHOOSE_GREEDY:
        case SL_OP_CHOOSE_DRAWN:
        case SL_OP_ADJUST_LOGITS:
        case SL_OP_RESTORE_LOGITS:
        case SL_OP_CHOOSE_GIVEN:
        case SL_OP_LOGPROBS: return check_choice(c);
        case SL_OP_SOFT_CAP: return check_soft_cap(c);
        case SL_OP_ROUTE: return check_route(c);
        case SL_OP_DEAL_ROWS: return check_deal_rows(c);
        case SL_OP_EXPERTS: return check_experts(c);
        case SL_OP_GATHER_LOGITS: return check_gather_logits(c);
        case SL_OP_ALL_REDUCE:
        case SL_OP_SEND:
        case SL_OP_RECEIVE: return check_exchange(c);
        default: return c.refuse_op("its kind is unknown");
    }
}

}  // namespace

bool is_panel_size(int32_t kind, int64_t num_inputs) {
    return kind >= 0 && kind < SL_PANEL_KIND_COUNT && is_size(num_inputs);
}

int check_cache(const sl_kv_cache &cache) {
    if (cache.block_size != 32 && cache.block_size != 64)
        return refuse(SL_BAD_ARGUMENT, "block_size is %d; it must be 32 or 64", cache.block_size);
    if (cache.head_dim < TILE || cache.head_dim > HEAD_DIM_MAX || cache.head_dim % TILE)
        return refuse(SL_BAD_ARGUMENT, "head_dim is %d; it must be a multiple of 16, at most %d", cache.head_dim,
                      HEAD_DIM_MAX);
    if (cache.num_kv_heads < 1 || cache.num_kv_heads > 65536 || !is_size(cache.num_blocks))
        return refuse(SL_BAD_ARGUMENT, "cache has %d heads and %d blocks", cache.num_kv_heads, cache.num_blocks);
    if (cache.format < 0 || cache.format >= SL_KV_FORMAT_COUNT)
        return refuse(SL_BAD_ARGUMENT, "the cache's format is %d; it must be 0 … %d", cache.format,
                      SL_KV_FORMAT_COUNT - 1);
    return SL_OK;
}

int check_op(const sl_op &op, int64_t number, StepNeeds &needs) {
    const Check check{op, number, needs};
    if (int s = check.want(op.rows == SL_TOKENS || op.rows == SL_SAMPLED, "rows is neither SL_TOKENS nor SL_SAMPLED"))
        return s;
    return check_kind(check);
}

}  // namespace shardline

using namespace shardline;

int64_t sl_panel_bytes(int32_t kind, int64_t max_rows, int64_t num_inputs) {
    if (!is_panel_size(kind, num_inputs) || !is_size(max_rows))
        return refuse(SL_BAD_ARGUMENT, "no panels of kind %d are [%lld, %lld]", kind, (long long)max_rows,
                      (long long)num_inputs);
    return max_rows * panel_row_bytes(kind, num_inputs) + PANEL_SLACK;
}

int64_t sl_kv_cache_bytes(const sl_kv_cache *cache) {
    if (!cache) return refuse(SL_BAD_ARGUMENT, "cache is NULL");
    if (int status = check_cache(*cache)) return status;
    return kv_block_bytes(*cache) * cache->num_blocks;
}
