//! Batch norm over a batch that several devices share: each has a thread, and where a norm needs a mean, the threads wait for each
//! other and take the mean of all. PyTorch has it as `SyncBatchNorm`.
//!
//! Means cross by way of the host, 4 bytes a channel: it works between devices of any kind, and makes each of them wait.
//! Not here: the normalization (`block.rs`), the threads (the trainer's).

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData, read_sync};

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
}

/// What they bring and take, one mean after another, in the same order on all threads.
#[derive(Debug)]
struct Round {
    number: u64,
    /// Of each what it brought in this round.
    brought: Vec<Option<Vec<f32>>>,
    /// Of the last round.
    mean: Vec<f32>,
    /// One has gone and will bring nothing more.
    broken: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Peer>> = const { RefCell::new(None) };
}

impl Peer {
    /// As many as there are devices.
    pub fn group(count: usize) -> Vec<Self> {
        let round = Round { number: 0, brought: vec![None; count], mean: vec![], broken: false };
        let group = Arc::new(Group { round: Mutex::new(round), changed: Condvar::new() });
        (0..count).map(|rank| Self { group: group.clone(), rank }).collect()
    }

    /// Runs `work`, whose batch norms in training take the statistics of all peers' pictures: of the forward pass and of the
    /// way back, which both have to be within. Every peer has to do the same work on as many pictures. If it panics, the others
    /// go on with what is no number.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Left<'a>(&'a Peer);
        impl Drop for Left<'_> {
            fn drop(&mut self) {
                CURRENT.with(|current| current.replace(None));
                if std::thread::panicking() {
                    self.0.leave();
                }
            }
        }
        CURRENT.with(|current| current.replace(Some(self.clone())));
        let _left = Left(self);
        work()
    }

    /// Brings nothing more: the others, who may wait, go on with what is no number.
    pub fn leave(&self) {
        self.round().broken = true;
        self.group.changed.notify_all();
    }

    /// The one whose work this thread is at.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.round().brought.len()
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // A thread that panicked has left, and a round is whole at any time.
        self.group.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mean of what all bring.
    fn mean(&self, own: Vec<f32>) -> Vec<f32> {
        let len = own.len();
        let mut round = self.round();
        let number = round.number;
        round.brought[self.rank] = Some(own);
        if round.brought.iter().all(Option::is_some) {
            let brought: Vec<_> = round.brought.iter_mut().filter_map(Option::take).collect();
            assert!(brought.iter().all(|one| one.len() == len), "peers do different work");
            let count = brought.len() as f32;
            let mean = |i: usize| brought.iter().map(|one| one[i]).sum::<f32>() / count;
            round.mean = (0..len).map(mean).collect();
            round.number += 1;
            self.group.changed.notify_all();
        }
        while round.number == number && !round.broken {
            round = self.group.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        // Nobody can end the next round before this thread has brought something to it.
        if round.number == number { vec![f32::NAN; len] } else { round.mean.clone() }
    }

    /// The mean of all peers' tensors of this place.
    pub(crate) fn mean_of(&self, x: Tensor<1>) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::mean_of_peers(x.into_dispatch(), self.clone()))
    }
}

/// Backends whose threads take means together.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"), Autodiff)]
pub(crate) trait PeerBackend: Backend {
    /// As [`Peer::mean_of`].
    #[fusion(default)]
    fn mean_of_peers(x: FloatTensor<Self>, peer: Peer) -> FloatTensor<Self> {
        let (shape, device) = (x.shape(), x.device());
        let own = read_sync(Self::float_into_data(x)).expect("a device gives back what it has");
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

    /// Each peer's loss depends on the mean: what comes back to one is the mean of what comes to all.
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
    fn peers_get_the_mean_round_after_round() {
        let peers = Peer::group(3);
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

    #[test]
    fn one_that_leaves_keeps_nobody_waiting() {
        let mut peers = Peer::group(2);
        let (other, peer) = (peers.remove(1), peers.remove(0));
        let waiting = thread::spawn(move || peer.mean(vec![1.0, 2.0]));
        thread::spawn(move || other.run(|| panic!("no more pictures"))).join().unwrap_err();
        assert!(waiting.join().unwrap().iter().all(|value| value.is_nan()));
    }
}
