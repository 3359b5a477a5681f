//! Batches: order, stand-ins, limits, threads.

use super::*;
use crate::augment::crop::padded;
use crate::rng::below;
use crate::{Crop, Encoded, Image, InMemory, Sample};

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
        cache: None,
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
fn every_image_comes_once_an_epoch_and_in_another_order_the_next() {
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
    assert_eq!((loader.batches(), loader.images()), (7, 45));
    assert_eq!(batches(config(), 0, 0)[6].shape, [3, 3, 4, 2]);
    let dropping = LoaderConfig { drop_last: true, ..config() };
    let loader = Loader::new(source(45), SHAPE, dropping.clone()).unwrap();
    assert_eq!((loader.batches(), loader.images()), (6, 42));
    assert_eq!(batches(dropping, 0, 0).len(), 6);
}

#[test]
fn changes_depend_on_seed_epoch_and_image() {
    let image = |seed, epoch| {
        let batches = batches(LoaderConfig { seed, ..config() }, epoch, 0);
        let of_ten = |batch: &Batch| {
            let place = batch.indices.iter().position(|&i| i == 10)?;
            Some(batch.pixels.floats()[place * 24..][..24].to_vec())
        };
        batches.iter().find_map(of_ten).unwrap()
    };
    assert_eq!(image(1, 2), image(1, 2));
    let others = (0..8).map(|epoch| image(1, epoch)).filter(|other| *other != image(1, 2));
    assert!(others.count() >= 5);
}

#[test]
fn dropping_an_epoch_early_ends_its_threads() {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (workers, taken) in [(0, 1), (1, 0), (1, 1), (3, 0), (3, 1), (3, 5)] {
            let images = source(4000);
            let config = LoaderConfig { workers, ..config() };
            let loader = Loader::new(images.clone(), SHAPE, config).unwrap();
            let mut epoch = loader.epoch(0);
            for _ in 0..taken {
                epoch.next().unwrap().unwrap();
            }
            drop((epoch, loader));
            // The threads held it: they are gone, not only detached.
            assert_eq!(Arc::strong_count(&images), 1, "{workers} workers");
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
}

/// Images 3, 10, 11 and 12 cannot be read.
struct Holes;

const BAD: [usize; 4] = [3, 10, 11, 12];

impl Source for Holes {
    fn len(&self) -> usize {
        45
    }
    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        if !BAD.contains(&index) {
            return source(45).sample(index);
        }
        let bytes = b"not an image".to_vec();
        Ok(Sample::Encoded(Encoded { bytes, name: format!("{index}.jpg").into() }))
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
fn the_next_readable_image_stands_for_a_bad_one() {
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
    let own = source(45).image(batch.indices[slot % 7]).unwrap();
    let mut expected = vec![];
    config().normalization.apply(&changed(&own, 0, 3).pixels, &mut expected);
    assert_eq!(batch.pixels.floats()[slot % 7 * 24..][..24], expected);
}

#[test]
fn bad_images_are_left_out_where_every_image_counts_once() {
    for workers in [0, 2] {
        let still = LoaderConfig { shuffle: false, workers, on_bad: OnBad::LeaveOut, ..config() };
        let loader = holes(LoaderConfig { batch_size: 3, ..still });
        let batches = all(&loader, 0, 0);
        let indices: Vec<usize> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
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
    assert!(error.contains("4 of 45 images cannot be read"), "{error}");
    assert!(error.contains("loader.max_bad = 0.07 allows 3: 3.jpg ("), "{error}");
    assert!(error.contains("fixnorm data check"), "{error}");
    for workers in [1, 2, 4] {
        assert_eq!(ends(workers, 0.07), (length, Some(error.clone())), "{workers} workers");
    }
    assert_eq!(ends(2, 0.09), (7, None));
}

#[test]
fn no_image_at_all_is_an_error_and_not_a_hang() {
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
    assert_eq!(error, "none of the 20 images can be read");
}

/// Image 20 panics, image 30 cannot be read.
struct Broken;

impl Source for Broken {
    fn len(&self) -> usize {
        45
    }
    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        assert!(index != 20, "image 20 is cursed");
        match index {
            30 => Err(DataError::Config("image 30 is unreadable".to_owned())),
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
        assert_eq!(error, "a loader thread failed: image 20 is cursed");
    }
}

#[test]
fn an_error_ends_the_epoch_whatever_the_number_of_workers() {
    for workers in [0, 1, 3] {
        let results = broken(workers, 3);
        assert_eq!(results.len(), 2, "{workers} workers");
        let error = results[1].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("1 of 45 images cannot be read"), "{error}");
        assert!(error.contains("image 30 is unreadable"), "{error}");
    }
}

/// An image padded and mirrored, drawn and computed as before there was more: the bits of runs made then.
fn changed(image: &Image, epoch: u64, place: u64) -> Image {
    let mut random = stream(5, Stream::Augment, epoch, place);
    let (top, left) = (below(5, &mut random), below(5, &mut random));
    let mirrored = below(2, &mut random) == 1;
    padded(image, top, left, 2, mirrored)
}

#[test]
fn a_batch_is_its_images_changed_one_by_one() {
    for batch in batches(config(), 4, 0) {
        let mut pixels = vec![];
        for &index in &batch.indices {
            let image = source(45).image(index).unwrap();
            let changed = changed(&image, 4, index as u64);
            config().normalization.apply(&changed.pixels, &mut pixels);
        }
        assert_eq!(batch.pixels.floats(), pixels);
        let labels: Vec<u32> = batch.indices.iter().map(|&i| (i % 5) as u32).collect();
        assert_eq!(batch.labels, labels);
    }
}

#[test]
fn repeated_images_follow_each_other_and_differ() {
    let transform = Transform { repeats: 3, ..config().transform };
    let repeated = batches(LoaderConfig { transform, ..config() }, 0, 0);
    let once = batches(config(), 0, 0);
    let indices = |batches: &[Batch]| -> Vec<usize> {
        batches.iter().flat_map(|batch| batch.indices.clone()).collect()
    };
    let expected: Vec<usize> = indices(&once)[..15].iter().flat_map(|&i| [i; 3]).collect();
    assert_eq!(indices(&repeated), expected);
    // The first is the one that comes without repetition, the others are changed in other ways.
    let pixels: Vec<f32> =
        repeated.iter().flat_map(|batch| batch.pixels.floats().into_owned()).collect();
    let images: Vec<&[f32]> = pixels.chunks_exact(24).collect();
    assert_eq!(images[0], &once[0].pixels.floats()[..24]);
    let same = images.chunks_exact(3).filter(|three| three[0] == three[1]).count();
    assert!(same < 5, "{same} of 15");
}

#[test]
fn bytes_are_kept_where_numbers_are_not_changed() {
    let own = config().transform;
    let made = |transform| batches(LoaderConfig { transform, ..config() }, 3, 2);
    let bytes =
        |batches: &[Batch]| batches.iter().all(|batch| matches!(batch.pixels, Pixels::Bytes(..)));
    let cut = Transform { cutmix: 1.0, ..own.clone() };
    assert!(bytes(&made(own.clone())) && bytes(&made(cut.clone())));
    assert!(!bytes(&made(Transform { mixup: 0.2, ..own.clone() })));
    // Changes of numbers as rare as can be: the same batches in the other way.
    for transform in [own, cut] {
        let rare = made(Transform { random_erasing: f64::MIN_POSITIVE, ..transform.clone() });
        assert!(!bytes(&rare));
        for (bytes, floats) in made(transform).iter().zip(&rare) {
            assert_eq!((&bytes.labels, &bytes.mixed), (&floats.labels, &floats.mixed));
            assert_eq!(bytes.pixels.floats(), floats.pixels.floats());
        }
    }
}

#[test]
fn parts_of_a_batch_are_the_batch() {
    let transform = Transform { cutmix: 1.0, ..config().transform };
    let whole = batches(LoaderConfig { batch_size: 12, transform, ..config() }, 0, 0).remove(0);
    assert_eq!(whole.clone().split(1), vec![whole.clone()]);
    let parts = whole.clone().split(3);
    assert!(parts.iter().all(|part| part.shape == [4, 3, 4, 2]));
    let pixels: Vec<f32> =
        parts.iter().flat_map(|part| part.pixels.floats().into_owned()).collect();
    assert_eq!(pixels, whole.pixels.floats().into_owned());
    let labels: Vec<u32> = parts.iter().flat_map(|part| part.labels.clone()).collect();
    let indices: Vec<usize> = parts.iter().flat_map(|part| part.indices.clone()).collect();
    assert_eq!((labels, indices), (whole.labels, whole.indices));
    let mixed = |batch: &Batch| batch.mixed.clone().unwrap();
    let others: Vec<u32> = parts.iter().flat_map(|part| mixed(part).labels).collect();
    assert_eq!(others, whole.mixed.clone().unwrap().labels);
    assert!(parts.iter().all(|part| mixed(part).lambda == whole.mixed.as_ref().unwrap().lambda));
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
    let weights: Vec<f32> = whole.iter().map(|batch| batch.mixed.clone().unwrap().lambda).collect();
    let distinct: std::collections::HashSet<u32> =
        weights.iter().map(|weight| weight.to_bits()).collect();
    assert!(distinct.len() >= 4, "{weights:?}");
    let labels = &whole[0].labels;
    let reversed: Vec<u32> = labels.iter().rev().copied().collect();
    assert_eq!(whole[0].mixed.clone().unwrap().labels, reversed);
}

#[test]
fn images_of_another_shape_are_refused() {
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
