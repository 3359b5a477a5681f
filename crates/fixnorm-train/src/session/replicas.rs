//! Further devices: each has a thread, gets a copy of the model at every step, and gives the gradient of its share of the
//! pictures.
//!
//! Weights are updated on the first device alone, so the copies are the same by construction, on devices of any kind. What
//! crosses from device to device is a model there and a gradient back, by one thread and so in one order.
//! Not here: the step (`step.rs`).

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use burn::module::Module;
use burn::tensor::Device;
use fixnorm_nn::{Classifier, Criterion, Peer};

use crate::session::step::{Found, Shown};

/// A copy of the model, and what to show it.
struct Task {
    model: Classifier,
    batches: Vec<Shown>,
    /// Batches of the step on all devices.
    of: usize,
}

/// The copy, whose running statistics have learned, and what it found.
pub(crate) type Done = (Classifier, Found);

/// The further devices.
#[derive(Default)]
pub(crate) struct Replicas {
    replicas: Vec<Replica>,
    /// The first device's place, where all normalize together.
    peer: Option<Peer>,
}

impl Replicas {
    /// On `devices`, which are without autodiff; `together` they normalize by the statistics of all their pictures.
    pub(crate) fn new(devices: Vec<Device>, criterion: Criterion, together: bool) -> Self {
        let count = 1 + devices.len();
        let mut peers = match together && count > 1 {
            true => Peer::group(count).into_iter().map(Some).collect(),
            false => vec![None; count],
        };
        let peer = peers.remove(0);
        let replica = |(device, peer)| Replica::new(device, criterion, peer);
        Self { replicas: devices.into_iter().zip(peers).map(replica).collect(), peer }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    /// The first device's place, where all normalize together.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Starts each on its share of a step's `of` batches.
    pub(crate) fn start(
        &self,
        model: &Classifier,
        shares: impl Iterator<Item = Vec<Shown>>,
        of: usize,
    ) {
        for (replica, share) in self.replicas.iter().zip(shares) {
            replica.start(model, share, of);
        }
    }

    /// Waits until they are done, one after the other.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = Done> {
        self.replicas.iter_mut().map(Replica::finish)
    }
}

/// A further device.
struct Replica {
    /// With autodiff.
    device: Device,
    /// None once there is nothing more to do.
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
                let found = Found::of(&model, criterion, batches, of, &own, peer.as_ref());
                // The run has ended: nobody wants it.
                if finished.send((model, found)).is_err() {
                    return;
                }
            }
        });
        Self { device, tasks: Some(tasks), done, thread: Some(thread) }
    }

    /// Starts on its share of a step's `of` batches.
    fn start(&self, model: &Classifier, batches: Vec<Shown>, of: usize) {
        // By way of `valid`: a mere clone shares its running statistics, which would move along.
        let model = model.valid().train().fork(&self.device);
        let tasks = self.tasks.as_ref().expect("tasks end with the replica");
        // A thread that has ended tells why when it is waited for.
        let _ = tasks.send(Task { model, batches, of });
    }

    /// Waits until it is done.
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
