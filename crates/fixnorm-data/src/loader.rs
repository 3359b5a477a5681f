//! Batches of pictures in an order, and with changes, that depend on (seed, epoch, index) alone.
//!
//! Worker `w` of `W` makes batches w, w + W, w + 2W, … and sends each into a bounded channel of its
//! own; the consumer takes from the channels in turn. So batches come in order, memory is bounded by
//! workers · (prefetch + 1) batches, and no result depends on the number of workers.
//! Not here: the changes themselves (`transform.rs`), the random streams (`rng.rs`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::augment::mix::{Mixed, mix};
use crate::rng::{Stream, shuffle, stream};
use crate::{DataError, Normalization, Source, Transform};

/// How a [`Loader`] works.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Pictures of a batch.
    pub batch_size: usize,
    /// Threads; 0 makes batches in the caller's.
    pub workers: usize,
    /// Batches that each worker makes ahead, at least 1.
    pub prefetch: usize,
    /// Decides order and changes.
    pub seed: u64,
    /// Another order every epoch.
    pub shuffle: bool,
    /// Leave out an incomplete last batch.
    pub drop_last: bool,
    /// How a sample is decoded, cut and changed.
    pub transform: Transform,
    /// From pixels to numbers.
    pub normalization: Normalization,
}

/// Pictures with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Normalized, `[n, h, w, c]` with the channel fastest.
    pub pixels: Vec<f32>,
    /// One a picture.
    pub labels: Vec<u32>,
    /// Which pictures of the source.
    pub indices: Vec<usize>,
    /// n, h, w, c.
    pub shape: [usize; 4],
    /// How its pictures are mixed with each other, where they are.
    pub mixed: Option<Mixed>,
}

/// Makes batches of a source.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn Source>,
    shape: [usize; 3],
    config: LoaderConfig,
}

impl Loader {
    /// A loader of pictures of `shape`, height, width and channels.
    ///
    /// # Errors
    /// [`DataError::Config`]: batches of no pictures, no picture, too few for `drop_last`, pictures
    /// without pixels, or a normalization that does not fit them.
    pub fn new(
        source: Arc<dyn Source>,
        shape: [usize; 3],
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let (size, count) = (config.batch_size, source.len());
        let Normalization { mean, std } = &config.normalization;
        let channels = [mean.len(), std.len()];
        let finite = mean.iter().all(|m| m.is_finite());
        let divisible = std.iter().all(|&s| s.is_finite() && s > 0.0);
        let problem = if size == 0 {
            "batch size must be at least 1".to_owned()
        } else if count == 0 {
            "there are no pictures".to_owned()
        } else if config.drop_last && count < size {
            format!("{count} pictures do not fill a batch of {size}")
        } else if shape.contains(&0) {
            format!("pictures of height, width and channels {shape:?} have no pixels")
        } else if channels != [shape[2]; 2] {
            format!("normalization of {channels:?} channels for pictures of {}", shape[2])
        } else if !finite || !divisible {
            format!("normalization needs finite means and std above 0, found {mean:?} and {std:?}")
        } else if let Some(problem) = config.transform.problem(shape) {
            problem
        } else {
            let inner = Inner { source, shape, config };
            return Ok(Self { inner: Arc::new(inner) });
        };
        Err(DataError::Config(problem))
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        let (count, size) = (self.inner.source.len(), self.inner.config.batch_size);
        match self.inner.config.drop_last {
            true => count / size,
            false => count.div_ceil(size),
        }
    }

    /// Pictures of an epoch.
    pub fn pictures(&self) -> usize {
        self.inner.source.len().min(self.batches() * self.inner.config.batch_size)
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: usize) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from the `first` on, as [`epoch`](Self::epoch) would give them.
    pub fn epoch_from(&self, epoch: usize, first: usize) -> Epoch {
        let order = Arc::new(self.inner.order(epoch));
        let left = first.min(self.batches())..self.batches();
        let workers = self.inner.config.workers.min(left.len());
        // A channel takes memory for all that it may hold: never for more than there is.
        let ahead = self.inner.config.prefetch.clamp(1, left.len().max(1));
        let threads = (0..workers).map(|worker| {
            let (sender, receiver) = sync_channel(ahead);
            let (inner, order) = (self.inner.clone(), order.clone());
            let own = (left.start + worker..left.end).step_by(workers);
            let handle = std::thread::spawn(move || {
                for index in own {
                    // The consumer has gone: nobody wants the rest.
                    if sender.send(inner.batch(&order, epoch, index)).is_err() {
                        return;
                    }
                }
            });
            Worker { receiver: Some(receiver), handle: Some(handle) }
        });
        Epoch { workers: threads.collect(), inner: self.inner.clone(), order, epoch, left, turn: 0 }
    }
}

impl Inner {
    /// What comes in an epoch, in order: pictures, of the repetition r those r · len further on.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let len = self.source.len();
        let mut order: Vec<usize> = (0..len).collect();
        if self.config.shuffle {
            shuffle(&mut order, &mut stream(self.config.seed, Stream::Order, epoch as u64, 0));
        }
        match self.config.transform.repeats {
            1 => order,
            repeats => (0..len).map(|at| order[at / repeats] + at % repeats * len).collect(),
        }
    }

    fn batch(&self, order: &[usize], epoch: usize, batch: usize) -> Result<Batch, DataError> {
        let LoaderConfig { batch_size, seed, transform, normalization, .. } = &self.config;
        let keys = &order[batch * batch_size..order.len().min((batch + 1) * batch_size)];
        let [h, w, c] = self.shape;
        let mut pixels = Vec::with_capacity(keys.len() * h * w * c);
        for &key in keys {
            let index = key % self.source.len();
            let mut random = stream(*seed, Stream::Augment, epoch as u64, key as u64);
            let sample = self.source.sample(index)?;
            let done = transform.apply(sample, self.shape, normalization, &mut random, &mut pixels);
            done.map_err(|error| match error {
                DataError::Config(problem) => {
                    DataError::Config(format!("picture {index}: {problem}"))
                }
                error => error,
            })?;
        }
        let indices: Vec<usize> = keys.iter().map(|key| key % self.source.len()).collect();
        let labels: Vec<u32> = indices.iter().map(|&index| self.source.label(index)).collect();
        let shape = [indices.len(), h, w, c];
        let mut random = stream(*seed, Stream::Mix, epoch as u64, batch as u64);
        let parameters = [transform.mixup, transform.cutmix];
        let mixed = mix(&mut pixels, shape, &labels, parameters, &mut random);
        Ok(Batch { labels, shape, pixels, indices, mixed })
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

/// The batches of an epoch, in order; an error is the last item. Dropping it ends its threads.
pub struct Epoch {
    workers: Vec<Worker>,
    inner: Arc<Inner>,
    order: Arc<Vec<usize>>,
    epoch: usize,
    left: Range<usize>,
    turn: usize,
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.left.next()?;
        let batch = if self.workers.is_empty() {
            self.inner.batch(&self.order, self.epoch, index)
        } else {
            let turn = self.turn;
            self.turn = (turn + 1) % self.workers.len();
            self.workers[turn].next()
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Crop, InMemory, Sample};

    use crate::augment::crop::padded;
    use crate::rng::below;

    const SHAPE: [usize; 3] = [3, 4, 2];

    fn config() -> LoaderConfig {
        LoaderConfig {
            batch_size: 7,
            workers: 2,
            prefetch: 1,
            seed: 5,
            shuffle: true,
            drop_last: false,
            transform: Transform { crop_padding: 2, hflip: 0.5, ..Transform::default() },
            normalization: Normalization { mean: vec![0.5, 0.25], std: vec![0.5, 0.2] },
        }
    }

    fn source(count: usize) -> Arc<dyn Source> {
        let pixels = (0..count * 24).map(|i| (i * 7 % 251) as u8).collect();
        Arc::new(InMemory::new(SHAPE, pixels, (0..count).map(|i| (i % 5) as u32).collect()))
    }

    fn batches(config: LoaderConfig, epoch: usize, first: usize) -> Vec<Batch> {
        let loader = Loader::new(source(45), SHAPE, config).unwrap();
        loader.epoch_from(epoch, first).map(Result::unwrap).collect()
    }

    #[test]
    fn workers_and_prefetch_change_nothing() {
        let expected = batches(LoaderConfig { workers: 0, ..config() }, 3, 0);
        for (workers, prefetch) in [(1, 0), (1, 5), (2, 1), (3, 2), (16, 1), (2, usize::MAX)] {
            let found = batches(LoaderConfig { workers, prefetch, ..config() }, 3, 0);
            assert_eq!(found, expected, "{workers} workers, {prefetch} ahead");
        }
    }

    #[test]
    fn resuming_within_an_epoch_skips_batches() {
        let whole = batches(config(), 1, 0);
        for first in 0..=8 {
            assert_eq!(batches(config(), 1, first), whole[first.min(whole.len())..]);
        }
    }

    #[test]
    fn every_picture_comes_once_an_epoch_and_in_another_order_the_next() {
        let order = |epoch| -> Vec<usize> {
            batches(config(), epoch, 0).into_iter().flat_map(|batch| batch.indices).collect()
        };
        let (first, second) = (order(0), order(1));
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, (0..45).collect::<Vec<_>>());
        }
    }

    #[test]
    fn incomplete_last_batch_is_counted_or_left_out() {
        let loader = Loader::new(source(45), SHAPE, config()).unwrap();
        assert_eq!((loader.batches(), loader.pictures()), (7, 45));
        assert_eq!(batches(config(), 0, 0)[6].shape, [3, 3, 4, 2]);
        let dropping = LoaderConfig { drop_last: true, ..config() };
        let loader = Loader::new(source(45), SHAPE, dropping.clone()).unwrap();
        assert_eq!((loader.batches(), loader.pictures()), (6, 42));
        assert_eq!(batches(dropping, 0, 0).len(), 6);
    }

    #[test]
    fn changes_depend_on_seed_epoch_and_picture() {
        let picture = |seed, epoch| {
            let batches = batches(LoaderConfig { seed, ..config() }, epoch, 0);
            let of_ten = |batch: &Batch| {
                let place = batch.indices.iter().position(|&i| i == 10)?;
                Some(batch.pixels[place * 24..][..24].to_vec())
            };
            batches.iter().find_map(of_ten).unwrap()
        };
        assert_eq!(picture(1, 2), picture(1, 2));
        let others = (0..8).map(|epoch| picture(1, epoch)).filter(|other| *other != picture(1, 2));
        assert!(others.count() >= 5);
    }

    #[test]
    fn dropping_an_epoch_early_ends_its_threads() {
        let (done, finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for (workers, taken) in [(0, 1), (1, 0), (1, 1), (3, 0), (3, 1), (3, 5)] {
                let pictures = source(4000);
                let config = LoaderConfig { workers, ..config() };
                let loader = Loader::new(pictures.clone(), SHAPE, config).unwrap();
                let mut epoch = loader.epoch(0);
                for _ in 0..taken {
                    epoch.next().unwrap().unwrap();
                }
                drop((epoch, loader));
                // The threads held it: they are gone, not only detached.
                assert_eq!(Arc::strong_count(&pictures), 1, "{workers} workers");
            }
            done.send(()).unwrap();
        });
        finished.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    }

    /// Picture 20 panics, picture 30 cannot be read.
    struct Broken;

    impl Source for Broken {
        fn len(&self) -> usize {
            45
        }
        fn sample(&self, index: usize) -> Result<Sample, DataError> {
            assert!(index != 20, "picture 20 is cursed");
            match index {
                30 => Err(DataError::Config("picture 30 is unreadable".to_owned())),
                index => source(45).sample(index),
            }
        }
        fn label(&self, _: usize) -> u32 {
            0
        }
    }

    fn broken(workers: usize, first: usize) -> Vec<Result<Batch, DataError>> {
        let still = LoaderConfig { shuffle: false, workers, ..config() };
        Loader::new(Arc::new(Broken), SHAPE, still).unwrap().epoch_from(0, first).collect()
    }

    #[test]
    fn panic_of_a_worker_is_an_error_and_not_a_hang() {
        for workers in [1, 2, 3] {
            let results = broken(workers, 0);
            assert_eq!(results.len(), 3);
            let error = results[2].as_ref().unwrap_err().to_string();
            assert_eq!(error, "a loader thread failed: picture 20 is cursed");
        }
    }

    #[test]
    fn an_error_ends_the_epoch_whatever_the_number_of_workers() {
        for workers in [0, 1, 3] {
            let results = broken(workers, 3);
            assert_eq!(results.len(), 2, "{workers} workers");
            let error = results[1].as_ref().unwrap_err().to_string();
            assert_eq!(error, "picture 30 is unreadable");
        }
    }

    /// Padding, mirroring and normalization, drawn and computed as they were before there was more: the bits
    /// of runs made then.
    #[test]
    fn a_batch_is_its_pictures_changed_one_by_one() {
        for batch in batches(config(), 4, 0) {
            let mut pixels = vec![];
            for &index in &batch.indices {
                let picture = source(45).picture(index).unwrap();
                let mut random = stream(5, Stream::Augment, 4, index as u64);
                let (top, left) = (below(5, &mut random), below(5, &mut random));
                let mirrored = below(2, &mut random) == 1;
                let changed = padded(&picture, top, left, 2, mirrored);
                config().normalization.apply(&changed.pixels, &mut pixels);
            }
            assert_eq!(batch.pixels, pixels);
            let labels: Vec<u32> = batch.indices.iter().map(|&i| (i % 5) as u32).collect();
            assert_eq!(batch.labels, labels);
        }
    }

    #[test]
    fn repeated_pictures_follow_each_other_and_differ() {
        let transform = Transform { repeats: 3, ..config().transform };
        let repeated = batches(LoaderConfig { transform, ..config() }, 0, 0);
        let once = batches(config(), 0, 0);
        let indices = |batches: &[Batch]| -> Vec<usize> {
            batches.iter().flat_map(|batch| batch.indices.clone()).collect()
        };
        let expected: Vec<usize> = indices(&once)[..15].iter().flat_map(|&i| [i; 3]).collect();
        assert_eq!(indices(&repeated), expected);
        // The first is the one that comes without repetition, the others are changed in other ways.
        let pictures: Vec<&[f32]> =
            repeated.iter().flat_map(|batch| batch.pixels.chunks_exact(24)).collect();
        assert_eq!(pictures[0], &once[0].pixels[..24]);
        let same = pictures.chunks_exact(3).filter(|three| three[0] == three[1]).count();
        assert!(same < 5, "{same} of 15");
    }

    #[test]
    fn mixing_depends_on_seed_epoch_and_batch_alone() {
        let mixing = |workers, first| {
            let transform = Transform { mixup: 0.2, cutmix: 1.0, ..config().transform };
            batches(LoaderConfig { transform, workers, ..config() }, 2, first)
        };
        let whole = mixing(0, 0);
        assert_eq!(mixing(3, 0), whole);
        assert_eq!(mixing(2, 4), whole[4..]);
        let weights: Vec<f32> =
            whole.iter().map(|batch| batch.mixed.clone().unwrap().lambda).collect();
        let distinct: std::collections::HashSet<u32> =
            weights.iter().map(|weight| weight.to_bits()).collect();
        assert!(distinct.len() >= 4, "{weights:?}");
        let labels = &whole[0].labels;
        let reversed: Vec<u32> = labels.iter().rev().copied().collect();
        assert_eq!(whole[0].mixed.clone().unwrap().labels, reversed);
    }

    #[test]
    fn pictures_of_another_shape_are_refused() {
        let loader = Loader::new(source(45), [4, 3, 2], config()).unwrap();
        let error = loader.epoch(0).next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("is 3x4x2, expected 4x3x2"), "{error}");
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let normalized = |mean: &[f32], std: &[f32]| LoaderConfig {
            normalization: Normalization { mean: mean.to_vec(), std: std.to_vec() },
            ..config()
        };
        let transformed = |transform| LoaderConfig { transform, ..config() };
        for (config, part) in [
            (LoaderConfig { batch_size: 0, ..config() }, "at least 1"),
            (LoaderConfig { batch_size: 46, drop_last: true, ..config() }, "do not fill a batch"),
            (normalized(&[0.5], &[0.5]), "channels"),
            (normalized(&[0.5, 0.5], &[0.5, 0.0]), "std above 0"),
            (transformed(Transform { hflip: 1.5, ..Transform::default() }), "hflip"),
            (transformed(Transform { scale: [0.5, 0.1], ..Transform::default() }), "scale"),
            (transformed(Transform { mixup: f64::NAN, ..Transform::default() }), "mixup"),
            (transformed(Transform { repeats: 0, ..Transform::default() }), "repeats"),
            (transformed(Transform { crop: Crop::Center, ..Transform::default() }), "2 channels"),
            (normalized(&[0.5, f32::NAN], &[0.5, 0.5]), "finite means"),
        ] {
            let error = Loader::new(source(45), SHAPE, config).err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = Loader::new(source(45), [3, 0, 2], config()).err().unwrap().to_string();
        assert!(error.contains("no pixels"), "{error}");
        assert!(Loader::new(source(0), SHAPE, config()).is_err());
    }
}
