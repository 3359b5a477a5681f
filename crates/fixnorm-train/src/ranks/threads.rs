//! Ranks as threads of a test.

use std::sync::{Arc, Barrier, Mutex};

use fixnorm_nn::Processes;

use super::{Ranks, Transport};
use crate::session::Stop;

/// A thread's place among the ranks.
#[derive(Debug)]
struct Thread {
    rank: usize,
    group: Arc<Group>,
}

#[derive(Debug)]
struct Group {
    barrier: Barrier,
    /// Each rank's values.
    values: Mutex<Vec<Vec<f32>>>,
    bytes: Mutex<Vec<u8>>,
}

impl Processes for Thread {
    fn count(&self) -> usize {
        self.group.values.lock().unwrap().len()
    }

    fn sum(&self, values: &mut [f32]) {
        self.group.values.lock().unwrap()[self.rank] = values.to_vec();
        self.group.barrier.wait();
        let all = self.group.values.lock().unwrap().clone();
        assert!(all.iter().all(|one| one.len() == values.len()), "ranks do different work");
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|one| one[i]).sum();
        }
        self.group.barrier.wait();
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        if self.rank == 0 {
            self.group.bytes.lock().unwrap().clone_from(bytes);
        }
        self.group.barrier.wait();
        bytes.clone_from(&self.group.bytes.lock().unwrap());
        self.group.barrier.wait();
    }

    fn abort(&self, code: u8) -> ! {
        panic!("rank {} aborts with code {code}", self.rank)
    }
}

/// Runs `work` on as many ranks, each with a stop of its own, and returns their results in order.
pub(crate) fn run<R: Send>(count: usize, work: impl Fn(Ranks) -> R + Sync) -> Vec<R> {
    let (barrier, bytes) = (Barrier::new(count), Mutex::default());
    let group = Arc::new(Group { barrier, values: Mutex::new(vec![vec![]; count]), bytes });
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|rank| {
                let job: Arc<dyn Transport> = Arc::new(Thread { rank, group: group.clone() });
                let work = &work;
                scope.spawn(move || work(Ranks { job: Some(job), stop: Stop::default() }))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
