// Threads that sleep until a number changes: by a futex on Linux, by a condition variable elsewhere.
#pragma once
#include <atomic>
#include <cstdint>

#ifndef __linux__
#include <condition_variable>
#include <mutex>
#endif

namespace shardline {

class Sleepers {
public:
    void sleep_while(std::atomic<uint32_t> &value, uint32_t old);
    void wake_all(std::atomic<uint32_t> &value);  // after it was changed; costs nothing where nobody sleeps

private:
    std::atomic<int32_t> count_{0};
#ifndef __linux__
    std::mutex mutex_;
    std::condition_variable changed_;
#endif
};

}  // namespace shardline
