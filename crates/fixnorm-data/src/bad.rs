//! Images that cannot be read or decoded: what is known of each, and how many a loader may skip.
//! Not here: what stands in their place (`loader.rs`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize, Serializer};

use crate::names::text_of;
use crate::{DataError, Sample, Source};

/// An image that cannot be read or decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadImage {
    /// Which image of the source.
    pub index: usize,
    /// Its file, or `shard.tar/name`.
    #[serde(rename = "path", serialize_with = "as_text")]
    pub name: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl BadImage {
    pub(crate) fn new(index: usize, error: DataError) -> Self {
        let (name, reason) = error.name_and_reason();
        Self { index, name, reason }
    }
}

/// A path that is not UTF-8 is no reason to lose a report.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text_of(path.as_os_str()))
}

/// What `make` makes of an image.
///
/// # Errors
/// What is wrong with the image. A decoder that panics on a strange file is no reason to lose a night's run.
pub(crate) fn read<R>(
    source: &dyn Source,
    index: usize,
    make: impl FnOnce(Sample) -> Result<R, DataError>,
) -> Result<R, DataError> {
    let sample = source.sample(index)?;
    let Sample::Encoded(encoded) = &sample else { return make(sample) };
    let path = encoded.name.clone();
    catch_unwind(AssertUnwindSafe(|| make(sample))).unwrap_or_else(|_| {
        Err(DataError::NotAnImage { path, message: "the decoder panicked".to_owned() })
    })
}

/// Which share of the images a loader may skip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) max_bad: f64,
    pub(crate) images: usize,
}

impl Limit {
    pub(crate) fn allowed(self) -> usize {
        (self.max_bad * self.images as f64).floor() as usize
    }
}

/// The bad images found so far, by their index.
#[derive(Debug, Default)]
pub(crate) struct Known(RwLock<BTreeMap<usize, BadImage>>);

impl Known {
    /// Adds images; those that were not known yet.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`] past the limit.
    pub(crate) fn add(&self, bad: Vec<BadImage>, limit: Limit) -> Result<Vec<BadImage>, DataError> {
        if bad.is_empty() {
            return Ok(bad);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = bad.into_iter().filter(|bad| !known.contains_key(&bad.index)).collect();
        known.extend(new.iter().map(|bad| (bad.index, bad.clone())));
        if known.len() > limit.allowed() {
            return Err(DataError::TooManyBad {
                bad: known.values().cloned().collect(),
                images: limit.images,
                max_bad: limit.max_bad,
                allowed: limit.allowed(),
            });
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_can_be_written() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"a/caf\xe9.jpg").into();
        let bad = super::BadImage { index: 3, name, reason: "torn".to_owned() };
        let json = serde_json::to_string(&bad).unwrap();
        assert_eq!(json, r#"{"index":3,"path":"a/caf\\xe9.jpg","reason":"torn"}"#);
    }
}
