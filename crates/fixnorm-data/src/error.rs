//! What can be wrong with data: the file, the index, what was expected and found.
//! Not here: the checks; each stands where the data is read.

use std::path::PathBuf;

/// Data that cannot be read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A data set that is not known.
    #[error("unknown data `{given}`; did you mean `{nearest}`? Data: {}", crate::spec::FORMS)]
    UnknownData {
        /// As given.
        given: String,
        /// The known form most like it.
        nearest: &'static str,
    },
    /// A data set named in a way that does not parse.
    #[error("data `{given}`: expected {expected}")]
    Spec {
        /// As given.
        given: String,
        /// The form.
        expected: &'static str,
    },
    /// The full Fashion-MNIST is in none of the usual places.
    #[error(
        "fashion-mnist not found in {}; put its four IDX files there, or name their directory with fashion-mnist:DIR or FIXNORM_DATA",
        list(.looked)
    )]
    NotFound {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A label that no class has.
    #[error("{}: label {label} of picture {index} is out of range, there are {classes} classes", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which picture.
        index: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A file that is not a picture that can be decoded.
    #[error("{} is not a JPEG, PNG or WebP picture that can be decoded: {message}", path.display())]
    NotAPicture {
        /// The file.
        path: PathBuf,
        /// The decoder's words.
        message: String,
    },
    /// A directory without pictures.
    #[error("{} holds no PNG or JPEG pictures", path.display())]
    NoPictures {
        /// The directory.
        path: PathBuf,
    },
    /// An augmentation policy that is not known.
    #[error(
        "unknown augmentation policy `{given}`; expected imagenet, original, v0, trivial, or a RandAugment such as rand-m9-n2-mstd0.5-inc1"
    )]
    Policy {
        /// As given.
        given: String,
    },
    /// A loader that cannot work.
    #[error("{0}")]
    Config(String),
    /// A worker thread died.
    #[error("a loader thread failed: {0}")]
    Worker(String),
}

impl DataError {
    /// Whether the user can mend it on the command line: a name that does not exist or parse.
    pub fn is_usage(&self) -> bool {
        matches!(self, DataError::UnknownData { .. } | DataError::Spec { .. })
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(", ")
}
