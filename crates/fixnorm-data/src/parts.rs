//! From labelled images of any size to a data set: class names, a validation set, checks.
//! Not here: where they come from (`folder.rs`, `tar.rs`, `parquet.rs`), a set to evaluate on (`evaluation.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::classes::MOST_CLASSES;
use crate::names::{counted, first_few};
use crate::source::Subset;
use crate::split::{self, VAL_SHARE};
use crate::split_names::SPLITS;
use crate::summary::PartSummary;
use crate::{DataError, DataSet, Source, Split, Summary, imagenet};

/// Names of classes that are only numbers, up to the largest label.
///
/// # Errors
/// More than a million classes; `path` is where the labels are from.
pub(crate) fn numbered(largest: u64, path: &Path) -> Result<Vec<String>, DataError> {
    if largest < MOST_CLASSES {
        Ok((0..=largest).map(|class| class.to_string()).collect())
    } else {
        let expected = format!("labels below {MOST_CLASSES}");
        Err(DataError::format(path, expected, largest))
    }
}

/// The purpose that a data set is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Training,
    /// Evaluation on this split, or on the one that suits best.
    Evaluation(Option<Split>),
}

impl Purpose {
    /// Whether this part must be read, of those that `there` says are there. Where no name means a split, all
    /// images count as training images.
    pub(crate) fn wants(self, split: Split, there: impl Fn(Split) -> bool) -> bool {
        match self {
            Purpose::Training => true,
            Purpose::Evaluation(Some(Split::Val)) | Purpose::Evaluation(None)
                if there(Split::Val) =>
            {
                split == Split::Val
            }
            // Validation images are taken from those.
            Purpose::Evaluation(None) if there(Split::Train) => split == Split::Train,
            Purpose::Evaluation(None) => split == Split::Test,
            Purpose::Evaluation(Some(Split::Test)) => split == Split::Test,
            // Which are left after some were taken for validation is known where both are.
            Purpose::Evaluation(Some(Split::Train)) => split != Split::Test,
            Purpose::Evaluation(Some(Split::Val)) => split == Split::Train,
        }
    }
}

/// Some of the images.
pub(crate) struct Part {
    pub(crate) source: Arc<dyn Source>,
    /// Where they are from, for people.
    pub(crate) from: String,
}

/// Images by what they are for.
pub(crate) struct Parts {
    pub(crate) name: String,
    /// The content that was read, for errors.
    pub(crate) path: PathBuf,
    pub(crate) train: Option<Part>,
    pub(crate) val: Option<Part>,
    pub(crate) test: Option<Part>,
    /// Whether no name means a split; all images are in `train` then.
    pub(crate) unsplit: bool,
    pub(crate) class_names: Vec<String>,
    /// Source of the labels, for people.
    pub(crate) labels: String,
    pub(crate) warnings: Vec<String>,
}

impl Parts {
    pub(crate) fn part(&self, split: Split) -> Option<&Part> {
        match split {
            Split::Train => self.train.as_ref(),
            Split::Val => self.val.as_ref(),
            Split::Test => self.test.as_ref(),
        }
    }

    /// Where a part has no image, or one with a label that no class has, it is an error.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        let classes = self.class_names.len();
        for split in SPLITS {
            let Some(Part { source, .. }) = self.part(split) else { continue };
            if source.is_empty() {
                return Err(DataError::EmptyPart { path: self.path.clone(), split });
            }
            let beyond = (0..source.len()).find(|&i| source.label(i) as usize >= classes);
            if let Some(index) = beyond {
                let (path, label) = (self.path.clone(), source.label(index));
                return Err(DataError::Label { path, index, label, classes });
            }
        }
        Ok(())
    }

    /// Takes a class-balanced part of the training images for validation where there is none.
    ///
    /// # Errors
    /// Too few training images, or one a class.
    pub(crate) fn take_val(&mut self) -> Result<(), DataError> {
        if self.val.is_some() {
            return Ok(());
        }
        let Some(Part { source, from }) = self.train.take() else { return Ok(()) };
        let labels = labels_of(&*source);
        let (train, val) = split::balanced(&labels, labels.len() / VAL_SHARE);
        if val.is_empty() {
            let expected = format!(
                "validation images, or at least {VAL_SHARE} for training to take them from, and two of a class"
            );
            return Err(DataError::format(&self.path, expected, labels.len()));
        }
        let part =
            |indices, from| Part { source: Arc::new(Subset { of: source.clone(), indices }), from };
        self.val = Some(part(val, format!("a twelfth of {from}")));
        self.train = Some(part(train, from));
        Ok(())
    }

    /// The data set of these images; without a validation set, a class-balanced part of the training images
    /// becomes one.
    ///
    /// # Errors
    /// A single class, labels that no class has, a part without images, or too few to validate on.
    pub(crate) fn data_set(mut self) -> Result<DataSet, DataError> {
        self.check()?;
        let Some(all) = &self.train else {
            return Err(DataError::EmptyPart { path: self.path, split: Split::Train });
        };
        self.warnings.extend(check_classes(&self.path, &*all.source, &self.class_names)?);
        if self.val.is_none() {
            self.take_val()?;
        } else if let Some(val) = &self.val {
            self.warnings.extend(without_images(Split::Val, &*val.source, &self.class_names));
        }
        let summary = self.summary();
        let (Some(train), Some(val)) = (self.train, self.val) else {
            return Err(DataError::EmptyPart { path: self.path, split: Split::Val });
        };
        Ok(DataSet {
            name: self.name,
            train: train.source,
            val: val.source,
            test: self.test.map(|test| test.source),
            shape: None,
            class_names: imagenet::named(self.class_names),
            normalization: imagenet::normalization(),
            summary,
        })
    }

    pub(crate) fn summary(&self) -> Summary {
        let part = |split| {
            let Part { source, from } = self.part(split)?;
            Some(PartSummary { split: Some(split), images: source.len(), from: from.clone() })
        };
        Summary {
            data: self.name.clone(),
            parts: SPLITS.into_iter().filter_map(part).collect(),
            classes: imagenet::named(self.class_names.clone()),
            labels: self.labels.clone(),
            warnings: self.warnings.clone(),
        }
    }
}

/// Refuses a single class. Classes without training images are worth a word.
///
/// # Errors
/// [`DataError::OneClass`]; `path` is the data set's.
pub(crate) fn check_classes(
    path: &Path,
    train: &dyn Source,
    class_names: &[String],
) -> Result<Option<String>, DataError> {
    let counts = counts(train, class_names.len());
    let mut present = (0..counts.len()).filter(|&class| counts[class] > 0);
    if let (Some(only), None) = (present.next(), present.next()) {
        let class = class_names[only].clone();
        return Err(DataError::OneClass { path: path.to_owned(), class });
    }
    Ok(without_images(Split::Train, train, class_names))
}

/// A word about the classes that have no images in a part.
fn without_images(split: Split, part: &dyn Source, class_names: &[String]) -> Option<String> {
    let counts = counts(part, class_names.len());
    let without = class_names.iter().zip(counts).filter(|(_, count)| *count == 0);
    let without: Vec<&String> = without.map(|(name, _)| name).collect();
    let classes = counted(without.len(), "class");
    let names = first_few(&without);
    (!without.is_empty())
        .then(|| format!("{classes} without {} images: {names}", split.adjective()))
}

fn labels_of(source: &dyn Source) -> Vec<u32> {
    (0..source.len()).map(|index| source.label(index)).collect()
}

/// Number of images of each class; labels are below `classes`.
pub(crate) fn counts(source: &dyn Source, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels_of(source).into_iter().for_each(|label| counts[label as usize] += 1);
    counts
}
