#include "op_check.h"

namespace shardline {

int check_gather_logits(const Check &c) {
    const sl_gather_logits &g = c.op.gather_logits;
    if (int s = c.want(c.op.rows == SL_SAMPLED, "rows must be SL_SAMPLED")) return s;
    if (int s = c.want(g.ranks && g.x && g.num_candidates && g.candidates,
                       "ranks, x, num_candidates or candidates is NULL"))
        return s;
    if (int s = c.want(g.num_ranks >= 2 && g.num_ranks <= SL_MAX_RANKS && g.rank >= 0 && g.rank < g.num_ranks,
                       "num_ranks is not 2 … SL_MAX_RANKS, or has no such rank"))
        return s;
    int64_t vocab = 0;
    for (int rank = 0; rank < g.num_ranks; vocab += g.rank_sizes[rank++])
        if (int s = c.want(is_size(g.rank_sizes[rank]), "rank_sizes are not 1 … 2^30 - 1")) return s;
    if (int s = c.want(g.x_stride >= g.rank_sizes[g.rank] && is_size(g.x_stride), "x's stride is too small")) return s;
    if (int s = c.want(!g.out == (g.rank != 0), "out is for rank 0 alone")) return s;
    c.needs.num_candidates = g.num_candidates;
    return c.want(!g.out || (g.out_stride >= vocab && is_size(g.out_stride)), "out's stride is too small");
}

int check_exchange(const Check &c) {
    const sl_exchange &e = c.op.exchange;
    return c.want(e.ranks && e.x && is_size(e.width), "ranks or x is NULL, or width not 1 … 2^30 - 1");
}

}  // namespace shardline
