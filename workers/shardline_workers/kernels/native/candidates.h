// Tokens that a cut by top-k or top-p has to look at one by one.
#pragma once
#include <cstdint>

namespace shardline {

struct Candidate {
    float logit;
    int32_t id;
};

// Likeliest first, of equally likely ones the lower id.
void sort_candidates(Candidate *candidates, int64_t count);

}  // namespace shardline
