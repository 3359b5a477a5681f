//! The classes and channel statistics of Fashion-MNIST.
//! Not here: the embedded subset (`embedded.rs`), reading the files (`directory.rs`), where they may lie
//! (`places.rs`).

use std::path::{Path, PathBuf};

use crate::{DataError, DataSet, Normalization, Summary, directory, places};

/// In the order of the labels.
const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

pub(crate) fn class_names() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

/// Mean and standard deviation of the training images.
pub(crate) fn normalization() -> Normalization {
    Normalization { mean: vec![0.2860], std: vec![0.3530] }
}

/// The full set in `dir`. Its files must be all there: a run without a test set would go unnoticed.
pub(crate) fn load(dir: &Path, name: String) -> Result<DataSet, DataError> {
    let data = directory::load(dir, Some(class_names()))?;
    let wrong = |file: &str, expected: &str, found: String| DataError::Format {
        path: dir.join(file),
        expected: expected.to_owned(),
        found,
    };
    if let Some([_, _, channels]) = data.shape
        && channels != 1
    {
        let found = format!("{channels} channels");
        return Err(wrong(directory::TRAIN_IMAGES, "grey images", found));
    }
    if data.test.is_none() {
        let expected = "the official test images";
        return Err(wrong(directory::TEST_IMAGES, expected, "no such file".to_owned()));
    }
    let summary = Summary { data: name.clone(), ..data.summary };
    Ok(DataSet { normalization: normalization(), name, summary, ..data })
}

/// The first of the usual places that has the training images.
pub(crate) fn find() -> Result<PathBuf, DataError> {
    places::find("fashion-mnist", has)
}

fn has(dir: &Path) -> bool {
    directory::has(dir, directory::TRAIN_IMAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataSpec;
    use crate::directory::tests::{directory, write_idx};

    fn load(dir: &tempfile::TempDir) -> Result<DataSet, DataError> {
        DataSpec::FashionMnist { dir: Some(dir.path().to_owned()) }.load()
    }

    fn error(dir: &tempfile::TempDir) -> String {
        load(dir).err().unwrap().to_string()
    }

    #[test]
    fn a_directory_has_ten_classes_and_known_statistics() {
        let dir = directory(240, 20, 4);
        let data = load(&dir).unwrap();
        assert_eq!(data.name, format!("fashion-mnist:{}", dir.path().display()));
        assert_eq!(data.class_names.len(), 10);
        assert_eq!(data.class_names[9], "Ankle boot");
        assert_eq!(data.normalization, Normalization { mean: vec![0.2860], std: vec![0.3530] });
        let counts = (data.train.len(), data.val.len(), data.test.map(|test| test.len()));
        assert_eq!(counts, (220, 20, Some(20)));
    }

    #[test]
    fn labels_above_nine_are_refused_in_both_parts() {
        for (count, labels) in [(240, directory::TRAIN_LABELS), (20, directory::TEST_LABELS)] {
            let dir = directory(240, 20, 10);
            let mut values: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
            values[13] = 10;
            write_idx(&dir.path().join(labels), &[count], &values);
            let said = error(&dir);
            assert!(said.contains(labels), "{said}");
            let expected = "label 10 of image 13 is out of range, there are 10 classes";
            assert!(said.ends_with(expected), "{said}");
        }
    }

    #[test]
    fn half_a_set_is_refused() {
        let said = error(&directory(240, 0, 4));
        assert!(said.contains(directory::TEST_IMAGES) && said.contains("test images"), "{said}");

        let dir = directory(240, 20, 4);
        let images = dir.path().join(directory::TRAIN_IMAGES);
        write_idx(&images, &[240, 1, 2, 3], &[0; 240 * 6]);
        let images = dir.path().join(directory::TEST_IMAGES);
        write_idx(&images, &[20, 1, 2, 3], &[0; 20 * 6]);
        let said = error(&dir);
        assert!(said.ends_with("expected grey images, found 3 channels"), "{said}");
    }
}
