//! Means over the batches of several devices: each device has a thread, and where a batch norm needs a mean, the threads
//! wait for each other and continue with the mean of all. PyTorch has it as `SyncBatchNorm`. Where several processes train
//! together, the thread that comes last waits for the other processes too.
//!
//! Means travel through the host, 4 bytes a channel, so devices of any kind can take part.
//! Not here: the normalization (`blocks/conv_bn_act.rs`), the threads (the trainer's).

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData, read_sync};

/// Processes that train copies of a model together, this one included.
pub trait Processes: fmt::Debug + Send + Sync {
    /// Their number.
    fn count(&self) -> usize;

    /// Replaces `values` by their sums over all processes. Each process calls it equally often, with as many values.
    fn sum(&self, values: &mut [f32]);
}

/// One of the threads that train copies of a model, each on its share of a batch.
#[derive(Clone, Debug)]
pub struct Peer {
    group: Arc<Group>,
    rank: usize,
}

#[derive(Debug)]
struct Group {
    round: Mutex<Round>,
    changed: Condvar,
    /// Other processes, each with as many peers.
    processes: Option<Arc<dyn Processes>>,
}

/// One mean after another, in the same order on all threads.
#[derive(Debug)]
struct Round {
    number: u64,
    /// Each peer's own values in this round.
    own: Vec<Option<Vec<f32>>>,
    /// The mean of the last round.
    mean: Vec<f32>,
    /// Whether a peer has left.
    broken: bool,
}

impl Peer {
    /// A group of `count` peers in this process, and as many in each of the others.
    pub fn group(count: usize, processes: Option<Arc<dyn Processes>>) -> Vec<Self> {
        let round = Round { number: 0, own: vec![None; count], mean: vec![], broken: false };
        let group =
            Arc::new(Group { round: Mutex::new(round), changed: Condvar::new(), processes });
        (0..count).map(|rank| Self { group: group.clone(), rank }).collect()
    }

    /// Runs the forward and the backward pass of this peer's share of a batch. If `work` panics, the other peers, which
    /// may be waiting, continue with NaN.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        struct LeaveOnPanic<'a>(&'a Peer);
        impl Drop for LeaveOnPanic<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.leave();
                }
            }
        }
        let _leave = LeaveOnPanic(self);
        work()
    }

    /// Whether all peers say yes. Every peer calls it equally often.
    pub fn all(&self, yes: bool) -> bool {
        self.mean(vec![if yes { 0.0 } else { f32::NAN }])[0] == 0.0
    }

    /// Leaves the group: the others, which may be waiting, continue with NaN.
    fn leave(&self) {
        self.round().broken = true;
        self.group.changed.notify_all();
    }

    /// Number of peers, in all processes.
    pub(crate) fn count(&self) -> usize {
        self.round().own.len() * self.processes()
    }

    /// Number of processes.
    fn processes(&self) -> usize {
        self.group.processes.as_ref().map_or(1, |processes| processes.count())
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // A thread that panicked has left, and a round is whole at any time.
        self.group.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mean of all peers' values.
    fn mean(&self, own: Vec<f32>) -> Vec<f32> {
        let len = own.len();
        let mut round = self.round();
        let number = round.number;
        round.own[self.rank] = Some(own);
        if round.own.iter().all(Option::is_some) {
            let all: Vec<_> = round.own.iter_mut().filter_map(Option::take).collect();
            assert!(all.iter().all(|one| one.len() == len), "peers do different work");
            let sum = |i: usize| all.iter().map(|one| one[i]).sum::<f32>();
            let mut sums: Vec<f32> = (0..len).map(sum).collect();
            if let Some(processes) = &self.group.processes {
                processes.sum(&mut sums);
            }
            let count = (all.len() * self.processes()) as f32;
            round.mean = sums.into_iter().map(|sum| sum / count).collect();
            round.number += 1;
            self.group.changed.notify_all();
        }
        while round.number == number && !round.broken {
            round = self.group.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        // The next round does not end before this thread has given its values to it.
        if round.number == number { vec![f32::NAN; len] } else { round.mean.clone() }
    }

    /// The mean of all peers' tensors. Every peer calls it equally often, with tensors of one length.
    pub(crate) fn mean_of(&self, x: Tensor<1>) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::mean_of_peers(x.into_dispatch(), self.clone()))
    }
}

/// Backends with a mean over peers.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"), Autodiff)]
pub(crate) trait PeerBackend: Backend {
    /// As [`Peer::mean_of`].
    #[fusion(default)]
    fn mean_of_peers(x: FloatTensor<Self>, peer: Peer) -> FloatTensor<Self> {
        let (shape, device) = (x.shape(), x.device());
        let own = read_sync(Self::float_into_data(x)).expect("a tensor can be read");
        let mean = peer.mean(own.iter().collect());
        Self::float_from_data(TensorData::new(mean, shape), &device)
    }
}

impl PeerBackend for Flex {}

#[cfg(feature = "gpu")]
impl PeerBackend for burn_cubecl::CubeBackend {}

impl<B: PeerBackend, C: CheckpointStrategy> PeerBackend for Autodiff<B, C> {
    fn mean_of_peers(x: FloatTensor<Self>, peer: Peer) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let mean = B::mean_of_peers(x, peer.clone());
        match MeanBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(peer, mean),
            OpsKind::UnTracked(prep) => prep.finish(mean),
        }
    }
}

#[derive(Debug)]
struct MeanBackward;

impl<B: PeerBackend> Backward<B, 1> for MeanBackward {
    type State = Peer;

    /// Each peer's loss depends on the mean, so each peer's gradient is the mean of all peers' gradients.
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dmean = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::mean_of_peers(dmean, ops.state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn every_round_gives_all_peers_the_mean() {
        let peers = Peer::group(3, None);
        let threads = peers.into_iter().map(|peer| {
            thread::spawn(move || {
                let own = |round: usize| vec![(peer.rank * round) as f32, peer.rank as f32];
                (0..100).map(|round| peer.mean(own(round))).collect::<Vec<_>>()
            })
        });
        let threads: Vec<_> = threads.collect();
        let expected: Vec<_> = (0..100).map(|round| vec![round as f32, 1.0]).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), expected);
        }
    }

    /// Another process whose values are always 5.
    #[derive(Debug)]
    struct Fives;

    impl Processes for Fives {
        fn count(&self) -> usize {
            2
        }

        fn sum(&self, values: &mut [f32]) {
            values.iter_mut().for_each(|value| *value += 2.0 * 5.0);
        }
    }

    #[test]
    fn a_mean_is_that_of_all_processes() {
        let peers = Peer::group(2, Some(Arc::new(Fives)));
        assert_eq!(peers[0].count(), 4);
        let threads = peers
            .into_iter()
            .map(|peer| thread::spawn(move || (peer.mean(vec![peer.rank as f32]), peer.all(true))));
        let threads: Vec<_> = threads.collect();
        for thread in threads {
            // (0 + 1 + 5 + 5) / 4; the others do not say yes.
            assert_eq!(thread.join().unwrap(), (vec![2.75], false));
        }
    }

    #[test]
    fn all_say_yes_or_none_does() {
        for (yes, expected) in [([true, true], true), ([true, false], false)] {
            let answers = Peer::group(2, None).into_iter().zip(yes);
            let threads: Vec<_> =
                answers.map(|(peer, yes)| thread::spawn(move || peer.all(yes))).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_peer_that_panics_ends_the_wait_of_the_others() {
        let mut peers = Peer::group(2, None);
        let (other, peer) = (peers.remove(1), peers.remove(0));
        let waiting = thread::spawn(move || peer.mean(vec![1.0, 2.0]));
        thread::spawn(move || other.run(|| panic!("no more images"))).join().unwrap_err();
        assert!(waiting.join().unwrap().iter().all(|value| value.is_nan()));
    }
}
