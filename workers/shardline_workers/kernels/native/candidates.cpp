#include "candidates.h"

#include <algorithm>

namespace shardline {

void sort_candidates(Candidate *candidates, int64_t count) {
    std::sort(candidates, candidates + count, [](const Candidate &a, const Candidate &b) {
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    });
}

}  // namespace shardline
