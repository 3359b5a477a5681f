//! The batches of an epoch, prepared ahead by threads and returned in order.
//!
//! Worker `w` of `W` makes batches w, w + W, w + 2W, … and sends each into a bounded channel of its
//! own; the consumer takes from the channels in turn. So batches come in order, memory is bounded by
//! workers · (prefetch + 1) batches, and no result depends on the number of workers.
//! Not here: what is in a batch (`loader.rs`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, Inner};
use crate::DataError;

/// The batches of an epoch, in order; an error is the last item. Dropping it ends its threads.
pub struct Epoch {
    workers: Vec<Worker>,
    inner: Arc<Inner>,
    order: Arc<Vec<usize>>,
    epoch: usize,
    left: Range<usize>,
    turn: usize,
}

impl Epoch {
    /// The batches `left` of an epoch.
    pub(super) fn start(inner: &Arc<Inner>, epoch: usize, left: Range<usize>) -> Self {
        let order = Arc::new(inner.order(epoch));
        let workers = inner.config.workers.min(left.len());
        // A channel takes memory for all that it may hold: never for more than there is.
        let ahead = inner.config.prefetch.clamp(1, left.len().max(1));
        let threads = (0..workers).map(|worker| {
            let (sender, receiver) = sync_channel(ahead);
            let (inner, order) = (inner.clone(), order.clone());
            let mut own = (left.start + worker..left.end).step_by(workers).peekable();
            let handle = std::thread::spawn(move || {
                own.peek().iter().for_each(|&&first| inner.prefetch(&order, first));
                while let Some(index) = own.next() {
                    // While this one is made.
                    own.peek().iter().for_each(|&&next| inner.prefetch(&order, next));
                    // The consumer has gone: nobody wants the rest.
                    if sender.send(inner.batch(&order, epoch, index)).is_err() {
                        return;
                    }
                }
            });
            Worker { receiver: Some(receiver), handle: Some(handle) }
        });
        Self { workers: threads.collect(), inner: inner.clone(), order, epoch, left, turn: 0 }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.left.next()?;
        let batch = if self.workers.is_empty() {
            // What was asked for before is under way and not asked for again.
            [index, index + 1].iter().for_each(|&batch| self.inner.prefetch(&self.order, batch));
            self.inner.batch(&self.order, self.epoch, index)
        } else {
            let turn = self.turn;
            self.turn = (turn + 1) % self.workers.len();
            self.workers[turn].next()
        };
        let batch = batch.and_then(|batch| self.inner.counted(batch));
        if batch.is_err() {
            self.left = 0..0;
        }
        Some(batch)
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        // Closing the channels first: a worker that waits to send then gives up.
        self.workers.iter_mut().for_each(|worker| drop(worker.receiver.take()));
        for worker in &mut self.workers {
            if let Some(handle) = worker.handle.take() {
                // Its panic, if any, was its consumer's error already or is nobody's loss.
                let _ = handle.join();
            }
        }
    }
}

struct Worker {
    receiver: Option<Receiver<Result<Batch, DataError>>>,
    handle: Option<JoinHandle<()>>,
}

impl Worker {
    fn next(&mut self) -> Result<Batch, DataError> {
        let received = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        received.unwrap_or_else(|| Err(DataError::Worker(self.cause_of_death())))
    }

    fn cause_of_death(&mut self) -> String {
        let panic = self.handle.take().and_then(|handle| handle.join().err());
        let text = panic.as_ref().and_then(|panic| {
            let owned = panic.downcast_ref::<String>().map(String::as_str);
            owned.or_else(|| panic.downcast_ref::<&str>().copied())
        });
        text.unwrap_or("it ended early").to_owned()
    }
}
