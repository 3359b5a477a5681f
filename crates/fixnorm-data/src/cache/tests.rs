//! What is kept, how much of it, and that nobody can tell.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    Batch, Crop, Encoded, InMemory, Loader, LoaderConfig, Normalization, OnBad, Transform,
};

const IMAGES: usize = 12;

/// JPEG files of several sizes, which counts how often one is read.
struct Files {
    files: Vec<Vec<u8>>,
    reads: AtomicUsize,
}

impl Files {
    fn new() -> Arc<Self> {
        let file = |index: u32| {
            let (width, height) = (90 + 7 * index, 120 - 5 * index);
            let image = image::RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([x * 2 + index, y * 2, x * y / 40].map(|value| value as u8))
            });
            let mut bytes = vec![];
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
            image.write_with_encoder(encoder).unwrap();
            bytes
        };
        let mut files: Vec<_> = (0..IMAGES as u32).map(file).collect();
        files[5] = b"no image".to_vec();
        Arc::new(Self { files, reads: AtomicUsize::new(0) })
    }
}

impl Source for Files {
    fn len(&self) -> usize {
        IMAGES
    }
    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.files[index].clone();
        Ok(Sample::Encoded(Encoded { bytes, name: format!("{index}.jpg").into() }))
    }
    fn label(&self, index: usize) -> u32 {
        index as u32
    }
}

fn config(crop: Crop, cache: Option<Arc<Cache>>) -> LoaderConfig {
    LoaderConfig {
        batch_size: 4,
        workers: 2,
        prefetch: 1,
        seed: 3,
        shuffle: true,
        drop_last: false,
        transform: Transform {
            crop,
            max_shorter_side: Some(40),
            hflip: 0.5,
            ..Transform::default()
        },
        normalization: Normalization { mean: vec![0.5; 3], std: vec![0.2; 3] },
        on_bad: OnBad::Replace,
        max_bad: 0.1,
        cache,
    }
}

/// Two epochs, of which the second is in another shape where images are cropped at random.
fn epochs(source: &Arc<Files>, crop: Crop, cache: Option<Arc<Cache>>) -> Vec<Batch> {
    let loader = Loader::new(source.clone(), [24, 32, 3], config(crop, cache)).unwrap();
    let other = [[32, 24, 3], [24, 32, 3]][usize::from(crop == Crop::Center)];
    let second = loader.in_shape(other).unwrap();
    loader.epoch(0).chain(second.epoch(1)).map(Result::unwrap).collect()
}

/// In memory: all images at 40 pixels a side take about 80,000 bytes.
const ALL: u64 = 1 << 20;

#[test]
fn no_cache_changes_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    for crop in [Crop::RandomResized, Crop::Center] {
        let expected = epochs(&Files::new(), crop, None);
        let caches = [
            Cache::memory(ALL),
            Cache::memory(10_000),
            Cache::memory(0),
            Cache::directory(dir.path(), ALL).unwrap(),
            // As the one before left it.
            Cache::directory(dir.path(), ALL).unwrap(),
            Cache::directory(&dir.path().join("small"), 10_000).unwrap(),
        ];
        for (which, cache) in caches.into_iter().enumerate() {
            assert!(
                epochs(&Files::new(), crop, Some(cache.into())) == expected,
                "{crop:?} {which}"
            );
        }
    }
}

#[test]
fn an_image_in_memory_is_not_read_again_and_the_bound_holds() {
    let reads = |bytes| {
        let files = Files::new();
        let cache = Some(Cache::memory(bytes).into());
        // Two workers may both meet an image that stands for the bad one.
        let config = LoaderConfig { workers: 0, ..config(Crop::RandomResized, cache) };
        let loader = Loader::new(files.clone(), [24, 32, 3], config).unwrap();
        (0..2).flat_map(|epoch| loader.epoch(epoch)).for_each(|batch| drop(batch.unwrap()));
        files.reads.load(Ordering::Relaxed)
    };
    // The bad image is tried in both epochs, each of the others is read once.
    let all = reads(ALL);
    assert_eq!(all, IMAGES + 1);
    let some = reads(20_000);
    assert!(all < some && some < reads(0), "{some} reads");
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_in(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_directory_is_bounded_over_processes_and_holds_no_torn_image() {
    let dir = tempfile::tempdir().unwrap();
    let run = |bytes| {
        let cache = Cache::directory(dir.path(), bytes).unwrap();
        epochs(&Files::new(), Crop::RandomResized, Some(cache.into()))
    };
    run(20_000);
    let some = files_in(dir.path());
    assert!((2..IMAGES - 1).contains(&some.len()), "{} files", some.len());
    run(20_000);
    assert_eq!(files_in(dir.path()).len(), some.len());
    let bytes: u64 = some.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(size(dir.path()).unwrap(), bytes);
    assert!(bytes <= 20_000);

    let expected = run(ALL);
    let files = files_in(dir.path());
    assert_eq!(files.len(), IMAGES - 1);
    for (at, file) in files.iter().enumerate() {
        let mut bytes = fs::read(file).unwrap();
        match at % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes[HEADER + 7] ^= 1,
            _ => bytes[0] ^= 1,
        }
        fs::write(file, bytes).unwrap();
    }
    assert!(run(ALL) == expected);
}

#[test]
fn another_file_or_another_transform_is_another_image() {
    let dir = tempfile::tempdir().unwrap();
    let cache = || Some(Arc::new(Cache::directory(dir.path(), ALL).unwrap()));
    epochs(&Files::new(), Crop::RandomResized, cache());
    let kept = files_in(dir.path()).len();
    // The same images in another order.
    let mut turned = Files::new();
    Arc::get_mut(&mut turned).unwrap().files.rotate_left(3);
    let expected = epochs(&turned, Crop::RandomResized, None);
    assert!(epochs(&turned, Crop::RandomResized, cache()) == expected);
    assert_eq!(files_in(dir.path()).len(), kept);
    epochs(&turned, Crop::Center, cache());
    assert_eq!(files_in(dir.path()).len(), 2 * kept);
}

#[test]
fn what_cannot_be_kept_or_written_is_said_or_made_anew() {
    let memory = || Some(Arc::new(Cache::memory(ALL)));
    let mut endless = config(Crop::RandomResized, memory());
    endless.transform.max_shorter_side = None;
    let error = Loader::new(Files::new(), [24, 32, 3], endless.clone()).err().unwrap().to_string();
    assert!(error.contains("max_shorter_side"), "{error}");
    endless.transform.exact_decode = true;
    assert!(Loader::new(Files::new(), [24, 32, 3], endless).is_ok());

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Cache::directory(&file, ALL).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    let gone = dir.path().join("gone");
    let cache = Cache::directory(&gone, ALL).unwrap();
    fs::remove_dir(&gone).unwrap();
    fs::write(&gone, "").unwrap();
    let expected = epochs(&Files::new(), Crop::Center, None);
    assert!(epochs(&Files::new(), Crop::Center, Some(cache.into())) == expected);
}

#[test]
fn padded_images_are_the_same_too() {
    let source = || -> Arc<dyn Source> {
        let pixels = (0..IMAGES * 24 * 32 * 3).map(|i| (i * 7 % 251) as u8).collect();
        Arc::new(InMemory::new([24, 32, 3], pixels, vec![0; IMAGES]))
    };
    let batches = |cache: Option<Cache>| -> Vec<Batch> {
        let config = config(Crop::Padded, cache.map(Arc::new));
        let loader = Loader::new(source(), [24, 32, 3], config).unwrap();
        (0..2).flat_map(|epoch| loader.epoch(epoch)).map(Result::unwrap).collect()
    };
    let expected = batches(None);
    assert!(batches(Some(Cache::memory(ALL))) == expected);
    let dir = tempfile::tempdir().unwrap();
    assert!(batches(Some(Cache::directory(dir.path(), ALL).unwrap())) == expected);
    assert!(files_in(dir.path()).is_empty());
}
