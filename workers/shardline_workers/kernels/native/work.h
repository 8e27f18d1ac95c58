// What an operation gets besides its own struct: the step, and which share of the work is this thread's.
#pragma once
#include "api.h"
#include "candidates.h"

namespace shardline {

struct Softmax;  // see attention_scratch.h
class Barrier;   // see pool.h, which these files do without: it would cost most of their compile time
void wait_at(Barrier &);

// One thread's scratch memory, and what all threads of a run share.
struct Scratch {
    float *rows;        // [the most rows of a step, 64] of this thread: columns of a linear layer, see linear.h
    Softmax *partials;  // of all threads: attention splits that are merged later, see attention.h
    int64_t num_partials;
    Candidate *candidates;  // [vocabulary + 1] of this thread, see candidates.h
};

struct Work {
    const sl_step &step;
    int thread, num_threads;
    int max_blocks;  // a row of step.block_tables
    Scratch scratch;
    Barrier &barrier;  // of all threads of the run

    int count(int which) const { return step.header[which]; }
    // This thread's part of `total` items, in whole units.
    int begin(int total, int unit = 1) const { return cut(total, unit, thread); }
    int end(int total, int unit = 1) const { return cut(total, unit, thread + 1); }

private:
    int cut(int total, int unit, int i) const {
        const int64_t at = (int64_t)((total + unit - 1) / unit) * i / num_threads * unit;
        return (int)(at < total ? at : total);
    }
};

using Operation = void (*)(const sl_op &, Work &);

// All operations of one instruction set, by sl_op_kind.
struct Operations {
    Operation run[SL_OP_KIND_COUNT];
};

}  // namespace shardline
