// What an operation gets besides its own struct: the step, and which share of the work is to be done.
#pragma once
#include "api.h"
#include "candidates.h"

namespace shardline {

struct Softmax;  // see attention_scratch.h

// One thread's scratch memory, and what all threads of a run share.
struct Scratch {
    float *rows;        // [the most rows of a step, 64] of this thread: columns of a linear layer, see linear.h
    Softmax *partials;  // of all threads: attention splits that are merged later, see attention.h
    int64_t num_partials;
    Candidate *candidates;  // [vocabulary + 1] of this thread, see candidates.h
};

struct Work {
    const sl_step &step;
    int share, num_shares;  // see shares.h; any thread does any of them
    int phase;              // see shares.h
    int num_threads;        // that may take part
    int max_blocks;         // a row of step.block_tables
    Scratch scratch;

    int count(int which) const { return step.header[which]; }
    // This share's part of `total` items, in whole units.
    int begin(int total, int unit = 1) const { return cut(total, unit, share); }
    int end(int total, int unit = 1) const { return cut(total, unit, share + 1); }

private:
    int cut(int total, int unit, int i) const {
        const int64_t at = (int64_t)((total + unit - 1) / unit) * i / num_shares * unit;
        return (int)(at < total ? at : total);
    }
};

using Operation = void (*)(const sl_op &, Work &);

// All operations of one instruction set, by sl_op_kind.
struct Operations {
    Operation run[SL_OP_KIND_COUNT];
    int item_rows[SL_KV_FORMAT_COUNT];  // most query rows that attention takes together, by the cache's format
};

}  // namespace shardline
