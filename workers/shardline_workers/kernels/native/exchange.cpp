#include "exchange.h"

#include "errors.h"
#include "rank_group.h"
#include "told_logits.h"

namespace shardline {
namespace {

constexpr int64_t FLOAT_BYTES = sizeof(float), CANDIDATE_BYTES = sizeof(sl_candidate);

// ---- gather_logits: candidates of all rows in one message, then the other rows as they are ----

int tell_logits(const sl_gather_logits &g, int num_rows) {
    if (const int64_t count = candidates_before(g, g.rank, num_rows))
        if (int status = sl_ranks_send(g.ranks, g.candidates, count * CANDIDATE_BYTES, 0)) return status;
    for (int row = 0; row < num_rows; row++) {
        if (num_told(g, g.rank, row)) continue;
        const int64_t bytes = g.rank_sizes[g.rank] * FLOAT_BYTES;
        if (int status = sl_ranks_send(g.ranks, g.x + row * g.x_stride, bytes, 0)) return status;
    }
    return SL_OK;
}

// The rest of such a row is -inf already.
void place_candidates(const sl_gather_logits &g, int rank, int64_t first_id, int num_rows) {
    const sl_candidate *candidate = g.candidates;
    for (int row = 0; row < num_rows; row++)
        for (int64_t left = num_told(g, rank, row); left > 0; left--, candidate++)
            if (candidate->id >= 0 && candidate->id < g.rank_sizes[rank])
                g.out[row * g.out_stride + first_id + candidate->id] = candidate->logit;
}

int hear_logits(const sl_gather_logits &g, int rank, int64_t first_id, int num_rows) {
    if (const int64_t count = candidates_before(g, rank, num_rows)) {
        if (int status = sl_ranks_receive(g.ranks, g.candidates, count * CANDIDATE_BYTES, rank)) return status;
        place_candidates(g, rank, first_id, num_rows);
    }
    for (int row = 0; row < num_rows; row++) {
        if (num_told(g, rank, row)) continue;
        float *out = g.out + row * g.out_stride + first_id;
        if (int status = sl_ranks_receive(g.ranks, out, g.rank_sizes[rank] * FLOAT_BYTES, rank)) return status;
    }
    return SL_OK;
}

int gather_logits(const sl_gather_logits &g, int num_rows) {
    const RankGroup &group = g.ranks->group;
    if (group.rank() != g.rank || group.num_ranks() != g.num_ranks)
        return refuse(SL_BAD_ARGUMENT, "logits are gathered by rank %d of %d, but the group's is %d of %d", g.rank,
                      g.num_ranks, group.rank(), group.num_ranks());
    if (g.rank != 0) return tell_logits(g, num_rows);
    int64_t first_id = g.rank_sizes[0];
    for (int rank = 1; rank < g.num_ranks; first_id += g.rank_sizes[rank++])
        if (int status = hear_logits(g, rank, first_id, num_rows)) return status;
    return SL_OK;
}

}  // namespace

bool is_exchange(const sl_op &op, int phase) {
    if (op.kind == SL_OP_GATHER_LOGITS) return phase == 1;
    return op.kind == SL_OP_ALL_REDUCE || op.kind == SL_OP_SEND || op.kind == SL_OP_RECEIVE;
}

int exchange(const sl_op &op, const sl_step &step) {
    const int num_rows = step.header[op.rows];
    if (op.kind == SL_OP_GATHER_LOGITS) return gather_logits(op.gather_logits, num_rows);
    const sl_exchange &e = op.exchange;
    const int64_t count = num_rows * e.width;
    if (op.kind == SL_OP_ALL_REDUCE) return sl_ranks_all_reduce(e.ranks, e.x, count, SL_FLOAT32);
    if (op.kind == SL_OP_SEND) return sl_ranks_send(e.ranks, e.x, count * FLOAT_BYTES, e.peer);
    return sl_ranks_receive(e.ranks, e.x, count * FLOAT_BYTES, e.peer);
}

}  // namespace shardline
