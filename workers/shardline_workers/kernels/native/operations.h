// All operations of one instruction set. Included by its own file only, after that has named itself SL_TARGET and
// included its lanes and products.
#pragma once
#include "adjust.h"
#include "attention.h"
#include "draw.h"
#include "elementwise.h"
#include "experts.h"
#include "gather_logits.h"
#include "groups.h"
#include "linear.h"
#include "rotate.h"
#include "route.h"

namespace shardline {
namespace SL_TARGET {

extern const Operations operations;
const Operations operations = {
    {
        embedding,         // SL_OP_EMBEDDING
        norm,              // SL_OP_NORM
        quantise_rows,     // SL_OP_QUANTISE
        linear,            // SL_OP_LINEAR
        gated_linear,      // SL_OP_GATED_LINEAR
        gated_activation,  // SL_OP_GATED_ACTIVATION
        rotate_store,      // SL_OP_ROTATE_STORE
        attention,         // SL_OP_ATTENTION
        gather_sampled,    // SL_OP_GATHER_SAMPLED
        choose_greedy,     // SL_OP_CHOOSE_GREEDY
        choose_drawn,      // SL_OP_CHOOSE_DRAWN
        logprobs,          // SL_OP_LOGPROBS
        soft_cap,          // SL_OP_SOFT_CAP
        adjust_logits,     // SL_OP_ADJUST_LOGITS
        restore_logits,    // SL_OP_RESTORE_LOGITS
        choose_given,      // SL_OP_CHOOSE_GIVEN
        route,             // SL_OP_ROUTE
        deal_rows,         // SL_OP_DEAL_ROWS
        experts,           // SL_OP_EXPERTS
        gather_logits,     // SL_OP_GATHER_LOGITS, of whose phases the second is a call to other ranks: see exchange.h
        nullptr,           // SL_OP_ALL_REDUCE: likewise
        nullptr,           // SL_OP_SEND
        nullptr,           // SL_OP_RECEIVE
    },
    {ITEM_ROWS[SL_KV_BF16], ITEM_ROWS[SL_KV_INT8]},
};

}  // namespace SL_TARGET
}  // namespace shardline
