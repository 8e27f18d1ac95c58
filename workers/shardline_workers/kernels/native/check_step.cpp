#include <initializer_list>

#include "checks.h"
#include "errors.h"

namespace shardline {
namespace {

struct StepCheck {
    const sl_step &step;
    const StepNeeds &needs;
    const sl_limits &limits;

    int32_t count(int which) const { return step.header[which]; }
};

int check_value(int64_t value, int64_t end, const char *what, int64_t at) {
    if (value >= 0 && value < end) return SL_OK;
    return refuse(SL_BAD_STEP, "%s[%lld] is %lld; it must be 0 … %lld", what, (long long)at, (long long)value,
                  (long long)end - 1);
}

int check_values(const int64_t *values, int64_t count, int64_t end, const char *what) {
    if (count && !values) return refuse(SL_BAD_STEP, "%s is NULL", what);
    for (int64_t i = 0; i < count; i++)
        if (int status = check_value(values[i], end, what, i)) return status;
    return SL_OK;
}

int check_counts(const StepCheck &c) {
    const int32_t sampled = c.count(SL_SAMPLED);
    const sl_limits &limits = c.limits;
    const int32_t bounds[SL_COUNT_COUNT] = {
        limits.max_tokens, limits.max_seqs, limits.max_sampled, sampled, c.count(SL_DRAWN), sampled, sampled, sampled};
    for (int i = 0; i < SL_COUNT_COUNT; i++)
        if (c.count(i) < 0 || c.count(i) > bounds[i])
            return refuse(SL_BAD_STEP, "header[%d] is %d; it must be 0 … %d", i, c.count(i), bounds[i]);
    return SL_OK;
}

int check_context(const StepCheck &c, int sequence) {
    const int32_t start = c.step.query_starts[sequence], end = c.step.query_starts[sequence + 1],
                  context = c.step.context_lengths[sequence];
    if (start < 0 || end < start || end > c.count(SL_TOKENS))
        return refuse(SL_BAD_STEP, "sequence %d has tokens %d … %d of %d", sequence, start, end - 1,
                      c.count(SL_TOKENS));
    const int64_t most = (int64_t)c.limits.max_blocks * c.needs.block_size;
    if (context < end - start || context > most)
        return refuse(SL_BAD_STEP, "context_lengths[%d] is %d; it must be %d … %lld", sequence, context, end - start,
                      (long long)most);
    if (int status = check_value(c.step.slots[sequence], c.limits.max_seqs, "slots", sequence)) return status;
    const int64_t *table = c.step.block_tables + c.step.slots[sequence] * c.limits.max_blocks;
    return check_values(table, (context + c.needs.block_size - 1) / c.needs.block_size, c.needs.num_blocks,
                        "block table");
}

int check_sequences(const StepCheck &c) {
    if (!c.step.query_starts || !c.step.context_lengths || !c.step.slots || !c.step.block_tables)
        return refuse(SL_BAD_STEP, "query_starts, context_lengths, slots or block_tables is NULL");
    for (int sequence = 0; sequence < c.count(SL_SEQUENCES); sequence++)
        if (int status = check_context(c, sequence)) return status;
    return SL_OK;
}

int check_choices(const StepCheck &c) {
    if (int status = check_values(c.needs.choice->drawn_rows, c.count(SL_DRAWN), c.count(SL_SAMPLED), "drawn_rows"))
        return status;
    return check_values(c.needs.choice->logprob_rows, c.count(SL_LOGPROBS), c.count(SL_SAMPLED), "logprob_rows");
}

int check_adjustments(const StepCheck &c) {
    const sl_choice &choice = *c.needs.adjusted;
    const int64_t count = c.count(SL_ADJUSTED);
    if (int status = check_values(choice.adjusted_rows, count, c.count(SL_SAMPLED), "adjusted_rows")) return status;
    if (int status = check_values(choice.adjusted_slots, count, c.limits.max_seqs, "adjusted_slots")) return status;
    for (int64_t i = 0; i < count; i++) {
        const int64_t slot = choice.adjusted_slots[i], width = choice.adjustments.width;
        if (int status = check_value(choice.adjustments.lengths[slot], width + 1, "adjustments' lengths", slot))
            return status;
    }
    return SL_OK;
}

}  // namespace

int check_limits(const sl_limits *limits) {
    if (!limits) return refuse(SL_BAD_ARGUMENT, "limits is NULL");
    const int32_t most = 1 << 24;
    for (int32_t value : {limits->max_tokens, limits->max_seqs, limits->max_blocks, limits->max_sampled})
        if (value < 1 || value > most) return refuse(SL_BAD_ARGUMENT, "a limit is %d; it must be 1 … %d", value, most);
    return SL_OK;
}

int check_step(const sl_step *step, const StepNeeds &needs, const sl_limits &limits) {
    if (!step || !step->header) return refuse(SL_BAD_STEP, "step or its header is NULL");
    const StepCheck c{*step, needs, limits};
    if (int status = check_counts(c)) return status;
    const int64_t tokens = c.count(SL_TOKENS);
    if (tokens > needs.routed_tokens)
        return refuse(SL_BAD_STEP, "%lld tokens are routed; there is room for %lld", (long long)tokens,
                      (long long)needs.routed_tokens);
    if (needs.token_ids)
        if (int status = check_values(step->token_ids, tokens, needs.vocab_size, "token_ids")) return status;
    if (needs.places) {
        if (int status = check_values(step->positions, tokens, needs.max_len, "positions")) return status;
        if (int status = check_values(step->cache_places, tokens, needs.num_blocks * needs.block_size, "cache_places"))
            return status;
    }
    if (needs.sequences)
        if (int status = check_sequences(c)) return status;
    if (needs.sampled_rows)
        if (int status = check_values(step->sampled_rows, c.count(SL_SAMPLED), tokens, "sampled_rows")) return status;
    if (needs.adjusted)
        if (int status = check_adjustments(c)) return status;
    if (needs.given)
        if (int status = check_values(needs.given->given_rows, c.count(SL_GIVEN), c.count(SL_SAMPLED), "given_rows"))
            return status;
    if (needs.num_candidates)
        if (int status =
                check_values(needs.num_candidates, c.count(SL_SAMPLED), SL_CANDIDATES_MAX + 1, "num_candidates"))
            return status;
    return needs.choice ? check_choices(c) : SL_OK;
}

}  // namespace shardline
