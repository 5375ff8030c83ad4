// Telling a slow peer from a dead one. A rank that works sends a sign of progress now and then; a rank that waits for
// others gives up when for a whole deadline nobody has made any, and asks who is still there. What counts as progress
// is the rank's to say (app/heartbeat): computing does, also inside one call that takes longer than the deadline, so
// that ranks that are lost, stopped or blocked are found, and one that computes for ever is waited for.
//
//   rank 2 works  --sign-->  rank 0  --sign-->  everyone        (rank 0 spreads them while it waits or works itself)
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include <mpi.h>

namespace geom {

class Watch {
public:
    /// Collective. `comm` is duplicated.
    explicit Watch(MPI_Comm comm);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    void set_deadline(std::chrono::duration<double> deadline);

    /// This rank has done some work: tells the others, at most every tenth of the deadline.
    void made_progress();
    /// A wait begins: the deadline counts from now.
    void begin_wait();
    /// Takes in and spreads what has arrived. To be called often, while waiting and while working.
    void listen();
    /// Throws Error(internal) when nobody has made progress for the deadline; `what` is waited for. Names the ranks
    /// that don't answer.
    void check(const char* what);

private:
    using Clock = std::chrono::steady_clock;
    void send(int peer, int tag);
    void spread();
    std::vector<int> missing_ranks();
    std::chrono::duration<double> interval() const;

    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0, size_ = 1;
    std::chrono::duration<double> deadline_ = std::chrono::minutes(10);
    Clock::time_point last_sign_, last_sent_, last_listened_;
    std::vector<MPI_Request> sending_;
    std::vector<std::string> hosts_;
};

}  // namespace geom
