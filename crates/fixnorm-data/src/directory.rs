//! A directory of four IDX files, named as those of the MNIST family, as a data set.
//! Not here: the format (`idx.rs`), which images validate (`split.rs`).

use std::path::Path;
use std::sync::Arc;

use crate::names::text_of;
use crate::split::{self, VAL_SHARE};
use crate::{DataError, DataSet, Source, Summary, idx, parts};

pub(crate) const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
pub(crate) const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
pub(crate) const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
pub(crate) const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// Whether `dir` has this file, gzipped or not.
pub(crate) fn has(dir: &Path, file: &str) -> bool {
    idx::existing(&dir.join(file)).exists()
}

/// The error for training images that are not in `dir`: they may be below it, or have other names.
fn elsewhere(dir: &Path) -> Option<DataError> {
    let (mut below, mut alike) = (vec![], vec![]);
    let mut look = vec![(dir.to_owned(), 0)];
    while let Some((at, depth)) = look.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), text_of(&entry.file_name()));
            if path.is_dir() && depth < 2 {
                if has(&path, TRAIN_IMAGES) {
                    below.push(path.display().to_string());
                }
                look.push((path, depth + 1));
            } else if name.contains("train-images") {
                alike.push(path.display().to_string());
            }
        }
    }
    below.sort();
    let problem = format!("no {TRAIN_IMAGES}");
    let remedy = match (&below[..], &alike[..]) {
        ([first, ..], _) => format!("it is in {first}"),
        (_, [first, ..]) => format!("{first} may be it: rename or link the four files"),
        _ => return None,
    };
    Some(DataError::Layout { path: dir.to_owned(), problem, remedy })
}

/// The data set in `dir`. With `class_names` known, labels are checked against them; else there are as
/// many classes as the largest training label says, named by their numbers.
///
/// # Errors
/// Files that are missing or not what they should be. Only the two test files may be left out, both.
pub(crate) fn load(dir: &Path, class_names: Option<Vec<String>>) -> Result<DataSet, DataError> {
    let read = |images: &str, labels: &str, classes| {
        let (image_file, label_file) = (dir.join(images), dir.join(labels));
        let (images, labels) = (idx::read(&image_file)?, idx::read(&label_file)?);
        let shape = images.shape.get(1..).unwrap_or_default().to_vec();
        let images = idx::labelled(images, labels, [&image_file, &label_file], classes)?;
        Ok::<_, DataError>((images, shape))
    };
    if !has(dir, TRAIN_IMAGES)
        && let Some(error) = elsewhere(dir)
    {
        return Err(error);
    }
    let known = class_names.as_ref().map(Vec::len);
    let (all, sides) = read(TRAIN_IMAGES, TRAIN_LABELS, known)?;
    let labels = all.labels();
    let class_names = class_names.unwrap_or_else(|| {
        let classes = labels.iter().max().map_or(0, |&label| label + 1);
        (0..classes).map(|class| class.to_string()).collect()
    });
    // Either one: a set that lacks the other is broken, not one without a test set.
    let test = if has(dir, TEST_IMAGES) || has(dir, TEST_LABELS) {
        let (test, test_sides) = read(TEST_IMAGES, TEST_LABELS, Some(class_names.len()))?;
        if test_sides != sides {
            return Err(DataError::Format {
                path: dir.join(TEST_IMAGES),
                expected: format!("images of the training set's size {sides:?}"),
                found: format!("{test_sides:?}"),
            });
        }
        Some(Arc::new(test) as Arc<dyn Source>)
    } else {
        None
    };
    let (train, val) = split::balanced(&labels, labels.len() / VAL_SHARE);
    if val.is_empty() {
        return Err(DataError::Format {
            path: dir.join(TRAIN_IMAGES),
            expected: format!("at least {VAL_SHARE} images"),
            found: labels.len().to_string(),
        });
    }
    let (train, val) = (all.subset(train), all.subset(val));
    let name = format!("idx:{}", dir.display());
    let counts = [
        Some((train.len(), TRAIN_IMAGES)),
        Some((val.len(), "a twelfth of the training images")),
        test.as_ref().map(|test| (test.len(), TEST_IMAGES)),
    ];
    let mut summary = Summary::new(&name, counts, &class_names, "numbers in the files");
    summary.warnings.extend(parts::check_classes(dir, &train, &class_names)?);
    Ok(DataSet {
        summary,
        name,
        normalization: train.statistics(),
        train: Arc::new(train),
        val: Arc::new(val),
        test,
        shape: Some([sides[0], sides[1], sides.get(2).copied().unwrap_or(1)]),
        class_names,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{DataSpec, Normalization};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs;
    use std::io::Write;

    pub(crate) fn write_idx(path: &Path, shape: &[u32], values: &[u8]) {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(values);
        fs::write(path, bytes).unwrap();
    }

    /// A directory of `train` and `test` images of 2×3 in `classes` classes.
    pub(crate) fn directory(train: u32, test: u32, classes: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (count, images, labels) in
            [(train, TRAIN_IMAGES, TRAIN_LABELS), (test, TEST_IMAGES, TEST_LABELS)]
        {
            if count > 0 {
                let pixels: Vec<u8> = (0..count * 6).map(|i| (i % 251) as u8).collect();
                write_idx(&dir.path().join(images), &[count, 2, 3], &pixels);
                let values: Vec<u8> = (0..count).map(|i| (i % classes) as u8).collect();
                write_idx(&dir.path().join(labels), &[count], &values);
            }
        }
        dir
    }

    fn load(dir: &tempfile::TempDir) -> Result<DataSet, DataError> {
        let dir = dir.path().to_owned();
        DataSpec::Idx { dir }.load()
    }

    #[test]
    fn idx_directory_is_split_and_measured() {
        let data = load(&directory(240, 12, 4)).unwrap();
        assert_eq!((data.train.len(), data.val.len()), (220, 20));
        assert_eq!(data.test.unwrap().len(), 12);
        assert_eq!((data.shape, data.class_names.len()), (Some([2, 3, 1]), 4));
        assert!((data.normalization.mean[0] - 0.49).abs() < 0.02);
        assert!(load(&directory(240, 0, 4)).unwrap().test.is_none());

        let (train, val) = (data.train, data.val);
        for class in 0..4 {
            let own = |part: &Arc<dyn Source>| {
                (0..part.len()).filter(|&i| part.label(i) == class).count()
            };
            assert_eq!((own(&train), own(&val)), (55, 5));
        }
    }

    #[test]
    fn test_labels_that_training_never_saw_are_refused() {
        let dir = directory(240, 12, 4);
        write_idx(&dir.path().join(TEST_LABELS), &[12], &[0, 1, 2, 3, 0, 1, 2, 9, 0, 1, 2, 3]);
        let error = load(&dir).err().unwrap().to_string();
        assert!(
            error.ends_with("label 9 of image 7 is out of range, there are 4 classes"),
            "{error}"
        );
    }

    #[test]
    fn files_below_or_with_other_names_are_found_or_named() {
        let dir = directory(240, 0, 4);
        let (outer, at) = (tempfile::tempdir().unwrap(), |name: &str| dir.path().join(name));
        let load_at = |path: &Path| DataSpec::Idx { dir: path.to_owned() }.load();
        // As Kaggle has them: with a dot, and each in a directory of its name.
        for (name, dotted) in
            [(TRAIN_IMAGES, "train-images.idx3-ubyte"), (TRAIN_LABELS, "train-labels.idx1-ubyte")]
        {
            fs::rename(at(name), at(dotted)).unwrap();
        }
        assert_eq!(load(&dir).unwrap().train.len(), 220);
        fs::rename(at("train-labels.idx1-ubyte"), at("moved")).unwrap();
        fs::create_dir(at("train-labels-idx1-ubyte")).unwrap();
        fs::rename(at("moved"), at("train-labels-idx1-ubyte/train-labels-idx1-ubyte")).unwrap();
        assert_eq!(load(&dir).unwrap().train.len(), 220);
        // As torchvision has them.
        fs::create_dir(outer.path().join("MNIST")).unwrap();
        fs::rename(dir.path(), outer.path().join("MNIST/raw")).unwrap();
        let error = load_at(outer.path()).err().unwrap().to_string();
        assert!(error.contains("it is in") && error.ends_with("MNIST/raw"), "{error}");
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("emnist-letters-train-images-idx3-ubyte"), "").unwrap();
        let error = load_at(other.path()).err().unwrap().to_string();
        assert!(
            error.contains("emnist-letters-train-images") && error.contains("rename"),
            "{error}"
        );
    }

    #[test]
    fn a_single_class_is_refused_and_one_without_images_is_a_warning() {
        let error = load(&directory(240, 12, 1)).err().unwrap().to_string();
        assert!(error.contains("all training images are of one class, `0`"), "{error}");
        let dir = directory(240, 0, 4);
        let labels: Vec<u8> = (0..240).map(|i| (i % 4 + 1) as u8).collect();
        write_idx(&dir.path().join(TRAIN_LABELS), &[240], &labels);
        let warnings = load(&dir).unwrap().summary.warnings;
        assert_eq!(warnings, ["1 class without training images: 0"]);
    }

    #[test]
    fn missing_files_are_named() {
        let dir = directory(240, 12, 4);
        fs::remove_file(dir.path().join(TRAIN_LABELS)).unwrap();
        let error = load(&dir).err().unwrap().to_string();
        assert!(error.starts_with("cannot read") && error.contains(TRAIN_LABELS), "{error}");
        for test in [TEST_IMAGES, TEST_LABELS] {
            let dir = directory(240, 12, 4);
            fs::remove_file(dir.path().join(test)).unwrap();
            let error = load(&dir).err().unwrap().to_string();
            assert!(error.starts_with("cannot read") && error.contains(test), "{error}");
        }
        let error = load(&directory(5, 0, 2)).err().unwrap().to_string();
        assert!(error.contains("at least 12 images"), "{error}");
    }

    #[test]
    fn test_images_of_another_size_are_refused() {
        let dir = directory(240, 12, 4);
        write_idx(&dir.path().join(TEST_IMAGES), &[12, 3, 2], &[0; 72]);
        let error = load(&dir).err().unwrap().to_string();
        assert!(error.contains(TEST_IMAGES), "{error}");
        assert!(error.ends_with("the training set's size [2, 3], found [3, 2]"), "{error}");
    }

    #[test]
    fn gzipped_files_and_colours_are_read() {
        let dir = directory(240, 0, 4);
        let pixels: Vec<u8> = (0..240).flat_map(|_| [10, 20, 30, 20, 20, 30]).collect();
        write_idx(&dir.path().join(TRAIN_IMAGES), &[240, 1, 2, 3], &pixels);
        for name in [TRAIN_IMAGES, TRAIN_LABELS] {
            let plain = fs::read(dir.path().join(name)).unwrap();
            let zipped = fs::File::create(dir.path().join(format!("{name}.gz"))).unwrap();
            let mut encoder = GzEncoder::new(zipped, Compression::fast());
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap();
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let data = load(&dir).unwrap();
        assert_eq!(data.shape, Some([1, 2, 3]));
        assert_eq!(data.val.image(0).unwrap().pixels, [10, 20, 30, 20, 20, 30]);
        let Normalization { mean, std } = data.normalization;
        for (found, expected) in mean.iter().zip([15.0, 20.0, 30.0]) {
            assert!((found - expected / 255.0).abs() < 1e-6, "{mean:?}");
        }
        // Two values 10 apart deviate by 5; a constant channel is not divided by zero.
        assert!((std[0] - 5.0 / 255.0).abs() < 1e-5, "{std:?}");
        assert!(std.iter().all(|&std| std > 0.0), "{std:?}");
    }
}
