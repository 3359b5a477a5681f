//! From labelled images of any size to a data set: class names, a validation set, checks.
//! Not here: where they come from (`folder.rs`, `tar.rs`, `parquet.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::source::Subset;
use crate::split::{self, VAL_SHARE};
use crate::{DataError, DataSet, Source, imagenet};

/// More classes than any set has: a label beyond is a mistake, not a reason to make up names for all below.
const MOST_CLASSES: u64 = 1 << 20;

/// Names of classes that are only numbers, up to the largest label.
///
/// # Errors
/// More than a million classes; `path` is where the labels are from.
pub(crate) fn numbered(largest: u64, path: &Path) -> Result<Vec<String>, DataError> {
    match largest < MOST_CLASSES {
        true => Ok((0..=largest).map(|class| class.to_string()).collect()),
        false => {
            let expected = format!("labels below {MOST_CLASSES}");
            Err(DataError::format(path, expected, largest))
        }
    }
}

/// Images by what they are for.
pub(crate) struct Parts {
    pub(crate) train: Arc<dyn Source>,
    pub(crate) val: Option<Arc<dyn Source>>,
    pub(crate) test: Option<Arc<dyn Source>>,
}

impl Parts {
    /// The data set of these images, read from `path`; without a validation set, a class-balanced part
    /// of the training images becomes one.
    ///
    /// # Errors
    /// Labels that no class has, or too few images to validate on.
    pub(crate) fn data_set(
        self,
        name: String,
        path: PathBuf,
        class_names: Vec<String>,
    ) -> Result<DataSet, DataError> {
        let classes = class_names.len();
        for source in
            [Some(&self.train), self.val.as_ref(), self.test.as_ref()].into_iter().flatten()
        {
            let beyond = (0..source.len()).find(|&i| source.label(i) as usize >= classes);
            if let Some(index) = beyond {
                return Err(DataError::Label { path, index, label: source.label(index), classes });
            }
        }
        let (train, val) = match self.val {
            Some(val) if !val.is_empty() => (self.train, val),
            _ => {
                let labels: Vec<u32> =
                    (0..self.train.len()).map(|index| self.train.label(index)).collect();
                let (train, val) = split::balanced(&labels, labels.len() / VAL_SHARE);
                if val.is_empty() {
                    let expected = format!(
                        "validation images, or at least {VAL_SHARE} for training to take them from"
                    );
                    return Err(DataError::format(&path, expected, labels.len()));
                }
                let part = |indices| -> Arc<dyn Source> {
                    Arc::new(Subset { of: self.train.clone(), indices })
                };
                (part(train), part(val))
            }
        };
        Ok(DataSet {
            name,
            train,
            val,
            test: self.test.filter(|test| !test.is_empty()),
            shape: None,
            class_names: imagenet::named(class_names),
            normalization: imagenet::normalization(),
        })
    }
}
