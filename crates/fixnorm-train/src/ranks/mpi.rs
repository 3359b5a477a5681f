//! Ranks by MPI, as the system has it.

use fixnorm_nn::Processes;
use mpi::Threading;
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};

use super::Transport;

/// All processes of the job.
pub(super) struct World {
    // Held, not read: MPI ends with it.
    _universe: Universe,
    rank: usize,
    count: usize,
}

impl World {
    /// Joins the job; none if MPI is in use already, or calls from more than one thread are not allowed.
    pub(super) fn join() -> Option<Self> {
        // Threads call it one after the other: the last one to reach a norm, and the one that takes the step.
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)?;
        let world = universe.world();
        let (rank, count) = (world.rank() as usize, world.size() as usize);
        (threading >= Threading::Serialized).then_some(Self { _universe: universe, rank, count })
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.count)
    }
}

impl Processes for World {
    fn count(&self) -> usize {
        self.count
    }

    fn sum(&self, values: &mut [f32]) {
        let own = values.to_vec();
        SimpleCommunicator::world().all_reduce_into(&own[..], values, SystemOperation::sum());
    }
}

impl Transport for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let world = SimpleCommunicator::world();
        let root = world.process_at_rank(0);
        let mut len = bytes.len() as u64;
        root.broadcast_into(&mut len);
        bytes.resize(len as usize, 0);
        // MPI counts in `i32`.
        for part in bytes.chunks_mut(1 << 30) {
            root.broadcast_into(part);
        }
    }

    fn abort(&self, code: u8) -> ! {
        SimpleCommunicator::world().abort(i32::from(code))
    }
}
