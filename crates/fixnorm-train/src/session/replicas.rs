//! Further devices: each has a thread, receives a copy of the model at every step, and returns the gradient of its share of
//! the images.
//!
//! Weights are updated on the first device alone, so the copies are equal by construction, on devices of any kind. A model
//! goes to each device and a gradient comes back, by one thread and so in one order.
//! Not here: the step (`step.rs`).

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use burn::module::Module;
use burn::tensor::Device;
use fixnorm_nn::{Classifier, Criterion, Peer};

use crate::ranks::Ranks;
use crate::session::gradient::{Gradient, Share};

/// A copy of the model, and its batches.
struct Task {
    model: Classifier,
    batches: Vec<Share>,
    /// Batches of the step on all devices.
    of: usize,
}

/// The copy, with updated running statistics, and its gradient.
pub(crate) type Done = (Classifier, Gradient);

/// The further devices.
#[derive(Default)]
pub(crate) struct Replicas {
    replicas: Vec<Replica>,
    /// The first device's place in synchronized batch norm.
    peer: Option<Peer>,
}

impl Replicas {
    /// Starts a thread for each of `devices`, which are without autodiff; `together` synchronizes batch norm among them
    /// and those of all `ranks`.
    pub(crate) fn new(
        devices: Vec<Device>,
        criterion: Criterion,
        together: bool,
        ranks: &Ranks,
    ) -> Self {
        let count = 1 + devices.len();
        let mut peers = if together && count * ranks.count() > 1 {
            Peer::group(count, ranks.processes()).into_iter().map(Some).collect()
        } else {
            vec![None; count]
        };
        let peer = peers.remove(0);
        let replica = |(device, peer)| Replica::new(device, criterion, peer);
        Self { replicas: devices.into_iter().zip(peers).map(replica).collect(), peer }
    }

    /// Number of further devices.
    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    /// The first device's place in synchronized batch norm.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Starts each on its share of a step's `of` batches.
    pub(crate) fn start(
        &self,
        model: &Classifier,
        shares: impl Iterator<Item = Vec<Share>>,
        of: usize,
    ) {
        for (replica, share) in self.replicas.iter().zip(shares) {
            replica.start(model, share, of);
        }
    }

    /// Waits for their gradients, one after the other.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = Done> {
        self.replicas.iter_mut().map(Replica::finish)
    }
}

/// A further device.
struct Replica {
    /// With autodiff.
    device: Device,
    /// None once the replica ends.
    tasks: Option<Sender<Task>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    fn new(device: Device, criterion: Criterion, peer: Option<Peer>) -> Self {
        let device = device.autodiff();
        let (tasks, to_do) = channel::<Task>();
        let (finished, done) = channel();
        let own = device.clone();
        let thread = std::thread::spawn(move || {
            for Task { model, batches, of } in to_do {
                let gradient =
                    Gradient::compute(&model, criterion, batches, of, &own, peer.as_ref());
                // The run has ended: nobody wants it.
                if finished.send((model, gradient)).is_err() {
                    return;
                }
            }
        });
        Self { device, tasks: Some(tasks), done, thread: Some(thread) }
    }

    /// Starts on its share of a step's `of` batches.
    fn start(&self, model: &Classifier, batches: Vec<Share>, of: usize) {
        // Through `valid`: a mere clone shares its running statistics, which would change too.
        let model = model.valid().train().fork(&self.device);
        let tasks = self.tasks.as_ref().expect("tasks end with the replica");
        // A thread that has ended reports why in `finish`.
        let _ = tasks.send(Task { model, batches, of });
    }

    /// Waits for its gradient.
    fn finish(&mut self) -> Done {
        match self.done.recv() {
            Ok(done) => done,
            Err(_) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(panic)) => resume_unwind(panic),
                _ => unreachable!("a replica's thread ends before its tasks only by a panic"),
            },
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was the step's.
            let _ = thread.join();
        }
    }
}
