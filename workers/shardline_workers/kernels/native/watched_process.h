// Another process, of which one wants to know whether it has ended.
#pragma once

#include <poll.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace shardline {

// Nothing is ever noticed where the system has no pidfd_open, or the process lies in another namespace.
class WatchedProcess {
public:
    WatchedProcess() = default;
    ~WatchedProcess() {
        if (file_ >= 0) close(file_);
    }
    WatchedProcess(const WatchedProcess &) = delete;
    WatchedProcess &operator=(const WatchedProcess &) = delete;

    // While it certainly lives: numbers of processes are used again. Once.
    void watch(int process) {
#if defined(__linux__) && defined(SYS_pidfd_open)
        file_ = (int)syscall(SYS_pidfd_open, process, 0);
#else
        (void)process;
#endif
    }

    bool has_ended() const {
        pollfd ended{file_, POLLIN, 0};
        return file_ >= 0 && poll(&ended, 1, 0) == 1;
    }

private:
    int file_ = -1;
};

}  // namespace shardline
