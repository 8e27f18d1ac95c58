// Logits that are changed before a token is chosen from them: biases, penalties, forbidden tokens. Few of a row are.
#pragma once
#include "work.h"

namespace shardline {
namespace SL_TARGET {

static double adjusted(double logit, const sl_choice &c, int64_t row, int64_t entry) {
    const int32_t occurrences = c.adjustments.occurrences[entry];
    double v = logit + (double)c.adjustments.biases[entry];
    if (occurrences >= 0) v = v > 0 ? v / c.repetition_penalties[row] : v * c.repetition_penalties[row];
    if (occurrences > 0) v -= c.frequency_penalties[row] * occurrences + c.presence_penalties[row];
    return v;
}

// Calls visit(row, entry, logit) for each adjustment of each row that is adjusted here; rows are shared out among
// threads.
template <class Visit>
static void for_each_adjustment(const sl_choice &c, const Work &work, Visit visit) {
    const sl_adjustments &a = c.adjustments;
    for (int number = work.share; number < work.count(SL_ADJUSTED); number += work.num_shares) {
        const int64_t row = c.adjusted_rows[number], slot = c.adjusted_slots[number];
        if ((c.num_candidates && c.num_candidates[row] > 0) != (c.is_part != 0)) continue;
        float *logits = c.logits + row * c.logits_stride;
        for (int64_t entry = slot * a.width; entry < slot * a.width + a.lengths[slot]; entry++) {
            const int64_t id = a.ids[entry] - c.first_id;
            if (id >= 0 && id < c.vocab_size) visit(row, entry, logits[id]);
        }
    }
}

static void adjust_logits(const sl_op &op, Work &work) {
    const sl_choice &c = op.choice;
    for_each_adjustment(c, work, [&](int64_t row, int64_t entry, float &logit) {
        c.adjustments.raw_logits[entry] = logit;
        logit = (float)adjusted(logit, c, row, entry);
    });
}

static void restore_logits(const sl_op &op, Work &work) {
    const sl_choice &c = op.choice;
    for_each_adjustment(c, work,
                        [&](int64_t, int64_t entry, float &logit) { logit = (float)c.adjustments.raw_logits[entry]; });
}

}  // namespace SL_TARGET
}  // namespace shardline
