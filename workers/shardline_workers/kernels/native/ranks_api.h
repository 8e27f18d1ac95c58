// Ranks on one host that exchange vectors through shared memory: a plain C ABI beside api.h, whose rules hold here too
// (ownership, errors, sl_last_error).
//
// A group is made of 2 … 8 processes (or threads) that all map one file of zeros in memory and join it, each as one rank.
// Every rank makes the same calls in the same order. A call goes in rounds: a rank copies a chunk into its slot, says so,
// waits until all others have done so, and reads their slots. Slots are double: whoever writes round r + 2 has seen all
// others begin round r + 1, so nobody still reads r. One meeting a round is enough.
//
// - Sums. Rank 0's value, plus rank 1's, and so on: in float32 for bfloat16, rounded once at the end, to nearest even.
//   Bits depend on ranks and values, never on chunks or timing; which NaN comes out of a NaN is not defined. Denormals
//   follow the calling thread's floating-point mode.
// - Waiting. A short spin, then sleep on a futex. Nobody waits longer than wait_ns for the next chunk of another rank. A
//   process that has died is noticed within 0.1 s, where the system knows pidfd_open; one that hangs or was stopped when
//   the limit is over. Both break the group: every rank's call fails, the ones that wait included, and so does each later
//   call. Only sl_ranks_leave is of use then.
// - Threads. One call at a time on a group.
#ifndef SHARDLINE_NATIVE_RANKS_API_H
#define SHARDLINE_NATIVE_RANKS_API_H

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// Besides enum sl_status; sl_last_error() names the rank, its process and the call.
enum sl_ranks_status {
    SL_RANK_LOST = -16,     // a rank's process died, or it left the group
    SL_RANK_LATE = -17,     // a rank did not come within the limit
    SL_RANKS_DIFFER = -18,  // ranks made different calls, or with different sizes
};

enum sl_number { SL_FLOAT32 = 0, SL_BFLOAT16 = 1, SL_FLOAT64 = 2, SL_NUMBER_COUNT = 3 };

typedef struct sl_ranks_options {
    int32_t rank;        // 0 … num_ranks - 1
    int32_t num_ranks;   // 2 … SL_MAX_RANKS
    int64_t slot_bytes;  // of one rank's chunk: a multiple of 256, 1,024 … 2^26
    int64_t spin_ns;     // before sleeping: 0 where ranks have no core each
    int64_t join_ns;     // limit of sl_ranks_join
    int64_t wait_ns;     // limit of every other wait
} sl_ranks_options;

// Size of the memory that a group shares, or SL_BAD_ARGUMENT.
SL_API int64_t sl_ranks_bytes(int32_t num_ranks, int64_t slot_bytes);

// Maps the file, which is of at least sl_ranks_bytes and was zeros before the first rank joined, and waits for all ranks.
// The descriptor stays the caller's and may be closed afterwards. *joined is written on success only.
SL_API int sl_ranks_join(int32_t file, const sl_ranks_options *options, sl_ranks **joined);
// Whoever waits for this rank fails, now or later. NULL is allowed.
SL_API void sl_ranks_leave(sl_ranks *ranks);

// values [count] is replaced by the sum over all ranks.
SL_API int sl_ranks_all_reduce(sl_ranks *ranks, void *values, int64_t count, int32_t number);
// values [num_ranks][count]; reduced [count] is the sum of this rank's row over all ranks.
SL_API int sl_ranks_reduce_scatter(sl_ranks *ranks, const void *values, void *reduced, int64_t count, int32_t number);
// values [bytes]; gathered [num_ranks][bytes] in rank order.
SL_API int sl_ranks_all_gather(sl_ranks *ranks, const void *values, void *gathered, int64_t bytes);
// values [bytes] of the source are copied to everybody's.
SL_API int sl_ranks_broadcast(sl_ranks *ranks, void *values, int64_t bytes, int32_t source);
// values are, one after the other, send_bytes[rank] for each rank; received receive_bytes[rank] from each. Rank a's
// send_bytes[b] must be rank b's receive_bytes[a].
SL_API int sl_ranks_all_to_all(sl_ranks *ranks, const void *values, const int64_t *send_bytes, void *received,
                               const int64_t *receive_bytes);
SL_API int sl_ranks_barrier(sl_ranks *ranks);

// Only the two ranks take part, and messages from one to the other keep their order. A send returns when its last chunk
// is in the mailbox, which has room for two; so it may wait for the receiver, or not.
SL_API int sl_ranks_send(sl_ranks *ranks, const void *values, int64_t bytes, int32_t destination);
SL_API int sl_ranks_receive(sl_ranks *ranks, void *values, int64_t bytes, int32_t source);
// Nanoseconds that this rank has waited in sends and receives, for the other one, since it joined. Not for NULL.
SL_API int64_t sl_ranks_waited_ns(const sl_ranks *ranks);

#ifdef __cplusplus
}
#endif
#endif
