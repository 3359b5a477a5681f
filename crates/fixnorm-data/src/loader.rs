//! Batches of pictures in an order, and with changes, that depend on (seed, epoch, index) alone.
//!
//! Worker `w` of `W` makes batches w, w + W, w + 2W, … and sends each into a bounded channel of its
//! own; the consumer takes from the channels in turn. So batches come in order, memory is bounded by
//! workers · (prefetch + 1) batches, and no result depends on the number of workers.
//!
//! A picture that cannot be read or decoded is skipped. For training, the next readable one in the epoch's
//! order stands in its place, changed as the other would have been. Whether one can be decoded is found anew
//! each time, on what is needed of it: that depends on the files alone, so batches keep their size and stay
//! the same for any number of workers and from any batch on. Elsewhere it is left out. The consumer's side
//! counts, batch by batch, so the limit is reached at the same batch too.
//! Not here: the changes themselves (`transform.rs`), the random streams (`rng.rs`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::augment::mix::{Mixed, mix};
use crate::bad::{self, Known, Limit};
use crate::rng::{Stream, shuffle, stream};
use crate::{BadPicture, DataError, Normalization, Source, Transform};

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
    /// What a picture that cannot be read is replaced by.
    pub on_bad: OnBad,
    /// Share of the pictures that may be skipped before it is an error.
    pub max_bad: f64,
}

/// What a picture that cannot be read is replaced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// The next readable picture in the epoch's order, so that batches keep their size.
    Replace,
    /// Nothing: its batch is smaller, or even empty.
    LeaveOut,
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
    /// Those that were skipped in making it and that no earlier batch of this loader has named.
    pub bad: Vec<BadPicture>,
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
    known: Arc<Known>,
}

impl Loader {
    /// A loader of pictures of `shape`, height, width and channels.
    ///
    /// # Errors
    /// [`DataError::Config`]: batches of no pictures, no picture, too few for `drop_last`, pictures
    /// without pixels, a normalization that does not fit them, or a share that is none.
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
        } else if !(0.0..=1.0).contains(&config.max_bad) {
            format!("loader.max_bad must be between 0 and 1, found {}", config.max_bad)
        } else if let Some(problem) = config.transform.problem(shape) {
            problem
        } else {
            let inner = Inner { source, shape, config, known: Arc::default() };
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

    /// The same pictures in another shape; bad ones are counted together.
    ///
    /// # Errors
    /// [`DataError::Config`]: a shape that does not go with the transform.
    pub fn in_shape(&self, shape: [usize; 3]) -> Result<Self, DataError> {
        let Inner { source, config, known, .. } = &*self.inner;
        let other = Self::new(source.clone(), shape, config.clone())?;
        let Inner { source, shape, config, .. } =
            Arc::into_inner(other.inner).expect("nobody else has it yet");
        let inner = Inner { source, shape, config, known: known.clone() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Tells of bad pictures found before, as by the run that this one goes on with: they count, and are not
    /// named again.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`] past the limit.
    pub fn remember(&self, mut bad: Vec<BadPicture>) -> Result<(), DataError> {
        bad.retain(|bad| bad.index < self.inner.source.len());
        self.inner.known.add(bad, self.inner.limit()).map(|_| ())
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

    fn limit(&self) -> Limit {
        Limit { max_bad: self.config.max_bad, pictures: self.source.len() }
    }

    /// A batch with all bad pictures met in making it, known or not. It ends early where these alone pass
    /// the limit.
    fn batch(&self, order: &[usize], epoch: usize, batch: usize) -> Result<Batch, DataError> {
        let LoaderConfig { batch_size, seed, ref transform, .. } = self.config;
        let slots = batch * batch_size..order.len().min((batch + 1) * batch_size);
        let [h, w, c] = self.shape;
        let mut pixels = Vec::with_capacity(slots.len() * h * w * c);
        let (mut indices, mut met) = (Vec::with_capacity(slots.len()), BTreeMap::new());
        let allowed = self.limit().allowed();
        for slot in slots {
            match self.fill(order, slot, epoch, &mut met, &mut pixels)? {
                Some(index) => indices.push(index),
                None if met.len() > allowed => break,
                None => {}
            }
        }
        let labels: Vec<u32> = indices.iter().map(|&index| self.source.label(index)).collect();
        let shape = [indices.len(), h, w, c];
        let mut random = stream(seed, Stream::Mix, epoch as u64, batch as u64);
        let parameters = [transform.mixup, transform.cutmix];
        let mixed = mix(&mut pixels, shape, &labels, parameters, &mut random);
        Ok(Batch { labels, shape, pixels, indices, mixed, bad: met.into_values().collect() })
    }

    /// Appends the numbers of the picture for a place in the epoch's order, its own or what stands for it, and
    /// tells which it was.
    fn fill(
        &self,
        order: &[usize],
        slot: usize,
        epoch: usize,
        met: &mut BTreeMap<usize, BadPicture>,
        pixels: &mut Vec<f32>,
    ) -> Result<Option<usize>, DataError> {
        let candidates = match self.config.on_bad {
            OnBad::Replace => order.len(),
            OnBad::LeaveOut => 1,
        };
        for ahead in 0..candidates {
            let index = order[(slot + ahead) % order.len()] % self.source.len();
            match self.append(index, epoch, order[slot], pixels)? {
                Ok(()) => return Ok(Some(index)),
                Err(bad) => met.insert(index, bad),
            };
            if met.len() > self.limit().allowed() {
                return Ok(None);
            }
        }
        match self.config.on_bad {
            OnBad::Replace => {
                Err(DataError::Config(format!("none of the {} pictures can be read", order.len())))
            }
            OnBad::LeaveOut => Ok(None),
        }
    }

    /// Appends a picture's numbers, changed as the one at `place` is changed, or says what is wrong with it.
    /// Only a data set of another shape is an error.
    fn append(
        &self,
        index: usize,
        epoch: usize,
        place: usize,
        pixels: &mut Vec<f32>,
    ) -> Result<Result<(), BadPicture>, DataError> {
        let LoaderConfig { seed, transform, normalization, .. } = &self.config;
        let start = pixels.len();
        let mut random = stream(*seed, Stream::Augment, epoch as u64, place as u64);
        let done = bad::read(&*self.source, index, |sample| {
            transform.apply(sample, self.shape, normalization, &mut random, pixels)
        });
        match done {
            Ok(()) => Ok(Ok(())),
            Err(DataError::Shape { found, expected }) => {
                let [found, expected] = [found, expected].map(|[h, w, c]| format!("{h}x{w}x{c}"));
                Err(DataError::Config(format!("picture {index} is {found}, expected {expected}")))
            }
            Err(error) => {
                pixels.truncate(start);
                Ok(Err(BadPicture::new(index, error)))
            }
        }
    }

    /// Leaves the bad pictures in a batch that no earlier one named.
    fn counted(&self, mut batch: Batch) -> Result<Batch, DataError> {
        batch.bad = self.known.add(batch.bad, self.limit())?;
        Ok(batch)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::crop::padded;
    use crate::rng::below;
    use crate::{Crop, Encoded, InMemory, Picture, Sample};

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
            on_bad: OnBad::Replace,
            max_bad: 0.0,
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

    /// Pictures 3, 10, 11 and 12 cannot be read.
    struct Holes;

    const BAD: [usize; 4] = [3, 10, 11, 12];

    impl Source for Holes {
        fn len(&self) -> usize {
            45
        }
        fn sample(&self, index: usize) -> Result<Sample, DataError> {
            match BAD.contains(&index) {
                true => {
                    let bytes = b"not a picture".to_vec();
                    Ok(Sample::Encoded(Encoded { bytes, name: format!("{index}.jpg").into() }))
                }
                false => source(45).sample(index),
            }
        }
        fn label(&self, index: usize) -> u32 {
            (index % 5) as u32
        }
    }

    fn holes(config: LoaderConfig) -> Loader {
        Loader::new(Arc::new(Holes), SHAPE, LoaderConfig { max_bad: 0.1, ..config }).unwrap()
    }

    fn all(loader: &Loader, epoch: usize, first: usize) -> Vec<Batch> {
        loader.epoch_from(epoch, first).map(Result::unwrap).collect()
    }

    #[test]
    fn the_next_readable_picture_stands_for_a_bad_one() {
        let whole = holes(LoaderConfig { workers: 0, ..config() });
        let order = whole.inner.order(2);
        let batches = all(&whole, 2, 0);
        let indices: Vec<usize> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        for (slot, &found) in indices.iter().enumerate() {
            let own = order.iter().cycle().skip(slot).find(|index| !BAD.contains(index));
            assert_eq!(Some(&found), own);
        }
        let mut found: Vec<usize> =
            batches.iter().flat_map(|batch| &batch.bad).map(|b| b.index).collect();
        found.sort_unstable();
        assert_eq!(found, BAD);
        // The next epoch names none of them again.
        assert!(all(&whole, 3, 0).iter().all(|batch| batch.bad.is_empty()));

        let strip = |batches: Vec<Batch>| -> Vec<Batch> {
            batches.into_iter().map(|batch| Batch { bad: vec![], ..batch }).collect()
        };
        for workers in [0, 1, 3] {
            for first in [0, 2, 5] {
                let other = holes(LoaderConfig { workers, ..config() });
                let expected = strip(batches[first..].to_vec());
                assert_eq!(strip(all(&other, 2, first)), expected, "{workers} workers");
            }
        }
        // What an earlier process found is not named again, and changes nothing.
        let resumed = holes(config());
        let known = batches.iter().flat_map(|batch| batch.bad.clone()).collect();
        resumed.remember(known).unwrap();
        assert_eq!(all(&resumed, 2, 4), strip(batches[4..].to_vec()));
    }

    #[test]
    fn a_stand_in_is_changed_as_the_other_would_have_been() {
        let loader = holes(LoaderConfig { workers: 0, ..config() });
        let order = loader.inner.order(0);
        let slot = order.iter().position(|&index| index == 3).unwrap();
        let batch = &all(&loader, 0, 0)[slot / 7];
        let own = source(45).picture(batch.indices[slot % 7]).unwrap();
        let mut expected = vec![];
        config().normalization.apply(&changed(&own, 0, 3).pixels, &mut expected);
        assert_eq!(batch.pixels[slot % 7 * 24..][..24], expected);
    }

    #[test]
    fn bad_pictures_are_left_out_where_every_picture_counts_once() {
        for workers in [0, 2] {
            let still =
                LoaderConfig { shuffle: false, workers, on_bad: OnBad::LeaveOut, ..config() };
            let loader = holes(LoaderConfig { batch_size: 3, ..still });
            let batches = all(&loader, 0, 0);
            let indices: Vec<usize> =
                batches.iter().flat_map(|batch| batch.indices.clone()).collect();
            assert_eq!(indices, (0..45).filter(|i| !BAD.contains(i)).collect::<Vec<_>>());
            assert_eq!((batches[3].shape, batches[3].labels.len()), ([1, 3, 4, 2], 1));
            assert_eq!(batches[3].bad.len(), 2);
        }
    }

    #[test]
    fn past_the_limit_it_ends_at_the_same_batch_for_any_number_of_workers() {
        let ends = |workers, max_bad| {
            let config = LoaderConfig { workers, max_bad, ..config() };
            let loader = Loader::new(Arc::new(Holes), SHAPE, config).unwrap();
            let results: Vec<_> = loader.epoch(1).collect();
            (results.len(), results.last().unwrap().as_ref().err().map(ToString::to_string))
        };
        let (length, error) = ends(0, 0.07);
        let error = error.unwrap();
        assert!(error.contains("4 of 45 pictures cannot be read"), "{error}");
        assert!(error.contains("loader.max_bad = 0.07 allows 3: 3.jpg ("), "{error}");
        assert!(error.contains("fixnorm data check"), "{error}");
        for workers in [1, 2, 4] {
            assert_eq!(ends(workers, 0.07), (length, Some(error.clone())), "{workers} workers");
        }
        assert_eq!(ends(2, 0.09), (7, None));
    }

    #[test]
    fn no_picture_at_all_is_an_error_and_not_a_hang() {
        struct Nothing;
        impl Source for Nothing {
            fn len(&self) -> usize {
                20
            }
            fn sample(&self, _: usize) -> Result<Sample, DataError> {
                Err(DataError::Config("gone".to_owned()))
            }
            fn label(&self, _: usize) -> u32 {
                0
            }
        }
        let config = LoaderConfig { max_bad: 1.0, ..config() };
        let loader = Loader::new(Arc::new(Nothing), SHAPE, config).unwrap();
        let error = loader.epoch(0).next().unwrap().unwrap_err().to_string();
        assert_eq!(error, "none of the 20 pictures can be read");
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
            assert!(error.starts_with("1 of 45 pictures cannot be read"), "{error}");
            assert!(error.contains("picture 30 is unreadable"), "{error}");
        }
    }

    /// A picture padded and mirrored, drawn and computed as before there was more: the bits of runs made then.
    fn changed(picture: &Picture, epoch: u64, place: u64) -> Picture {
        let mut random = stream(5, Stream::Augment, epoch, place);
        let (top, left) = (below(5, &mut random), below(5, &mut random));
        let mirrored = below(2, &mut random) == 1;
        padded(picture, top, left, 2, mirrored)
    }

    #[test]
    fn a_batch_is_its_pictures_changed_one_by_one() {
        for batch in batches(config(), 4, 0) {
            let mut pixels = vec![];
            for &index in &batch.indices {
                let picture = source(45).picture(index).unwrap();
                let changed = changed(&picture, 4, index as u64);
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
            (LoaderConfig { max_bad: 1.5, ..config() }, "loader.max_bad"),
            (LoaderConfig { max_bad: f64::NAN, ..config() }, "loader.max_bad"),
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
