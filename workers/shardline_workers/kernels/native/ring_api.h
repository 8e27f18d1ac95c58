// Frames of bytes from one writer to readers of the same host, through a ring in shared memory: a plain C ABI beside
// api.h, whose rules hold here too (ownership, errors, sl_last_error).
//
// One writer and 1 … 7 readers, processes or threads, all map one file of zeros in memory and join it. Every reader gets
// every frame, whole and in order. A frame lies in one slot, or in as many as it needs, one after the other:
//
//   slots      | 12 | 13 |  6 |  7 |  8 |  9 | 10 | 11 |     numbers of pieces, counted from the first on
//                      ^written   ^the slowest reader has read up to here: the writer has room for two more
//
// - Waiting. A short spin, then sleep on a futex. The writer waits only where the slowest reader is a whole ring behind,
//   and no longer than wait_ns; so it runs ahead by as many pieces as there are slots. A reader waits as long as it says,
//   which breaks nothing; only the later pieces of a frame must follow within wait_ns.
// - Ends. A process that has died, or left, is noticed within 0.1 s, where the system knows pidfd_open; what was written
//   before can still be read. A reader that is lost or late breaks the ring for its writer: all later writes fail, too.
// - Threads. One call at a time on each end.
#ifndef SHARDLINE_NATIVE_RING_API_H
#define SHARDLINE_NATIVE_RING_API_H

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// Besides enum sl_status; sl_last_error() names the end and its process.
enum sl_ring_status {
    SL_RING_LOST = -32,   // the process at the other end died, or it left
    SL_RING_LATE = -33,   // it did not come, or took or gave nothing, within the limit
    SL_RING_EMPTY = -34,  // no frame came in the time that the reader wanted to wait; nothing is broken
};

#define SL_MAX_READERS 7
#define SL_RING_WRITER 0  // place of the writer

typedef struct sl_ring sl_ring;

typedef struct sl_ring_options {
    int32_t place;        // SL_RING_WRITER, or 1 … num_readers
    int32_t num_readers;  // 1 … SL_MAX_READERS
    int32_t num_slots;    // 2 … 65,536: pieces that the writer may be ahead; a power of two, as their numbers wrap around
    int32_t slot_bytes;   // of one piece: a multiple of 64, 64 … 2^26
    int64_t spin_ns;      // before sleeping: 0 where the ends have no core each
    int64_t join_ns;      // limit of sl_ring_join
    int64_t wait_ns;      // limit of every other wait for the other end
} sl_ring_options;

// Size of the memory that the ends share, or SL_BAD_ARGUMENT.
SL_API int64_t sl_ring_bytes(int32_t num_readers, int32_t num_slots, int32_t slot_bytes);

// Maps the file, which is of at least sl_ring_bytes and was zeros before the first end joined, and waits for all others.
// The descriptor stays the caller's and may be closed afterwards. *joined is written on success only.
SL_API int sl_ring_join(int32_t file, const sl_ring_options *options, sl_ring **joined);
// Whoever waits for this end fails, now or later. NULL is allowed.
SL_API void sl_ring_leave(sl_ring *ring);

// frame [bytes], at least 1.
SL_API int sl_ring_write(sl_ring *ring, const void *frame, int64_t bytes);
// Waits for the next frame and gives its size. Where it is larger than `room`, nothing was read: come again with more.
SL_API int64_t sl_ring_read(sl_ring *ring, void *frame, int64_t room, int64_t limit_ns);

#ifdef __cplusplus
}
#endif
#endif
