//! What can be wrong with data: the file, the index, what was expected and found.
//! Not here: the checks; each stands where the data is read.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::names::first_few;
use crate::{BadImage, Split};

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
    /// A data set is in none of the usual places.
    #[error(
        "{name} not found in {}; get it with `fixnorm data fetch {name}`, or name its directory with {name}:DIR or FIXNORM_DATA",
        list(.looked)
    )]
    NotFound {
        /// Its name.
        name: &'static str,
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
    /// A file of a server or an object store that cannot be had.
    #[error("{url}: {problem}; {remedy}")]
    Remote {
        /// The file.
        url: String,
        /// Why not.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A file that is not what its name says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// A label that no class has.
    #[error("{}: label {label} of image {index} is out of range, there are {classes} classes", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which image.
        index: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A class with fewer training images than a subset takes.
    #[error(
        "{data}: class {class} has {found} training images, and per_class={wanted} takes {wanted} of each class"
    )]
    TooFewOfClass {
        /// The data set.
        data: String,
        /// The class.
        class: String,
        /// Its training images.
        found: usize,
        /// Images of each class asked for.
        wanted: usize,
    },
    /// A file that is not an image, or an image that cannot be decoded.
    #[error("{} cannot be decoded: {message}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// The reason.
        message: String,
    },
    /// A directory without images.
    #[error("{} holds no images", path.display())]
    NoImages {
        /// The directory.
        path: PathBuf,
    },
    /// A pattern that no file fits.
    #[error("{} fits no {kind} file{hint}", pattern.display())]
    NoShards {
        /// The pattern.
        pattern: PathBuf,
        /// `.tar` or `.parquet`.
        kind: &'static str,
        /// What is there instead, if that is known.
        hint: String,
    },
    /// A part of a data set that has no images, or is not there.
    #[error("{}: no {} images{}", path.display(), split.adjective(), empty_part(*.split))]
    EmptyPart {
        /// The data set.
        path: PathBuf,
        /// The part.
        split: Split,
    },
    /// Training images of a single class.
    #[error(
        "{}: all training images are of one class, `{class}`, so there is nothing to learn; expected two classes or more",
        path.display()
    )]
    OneClass {
        /// The data set.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// Directories or files whose names allow no reading, or several.
    #[error("{}: {problem}; {remedy}", path.display())]
    Layout {
        /// The directory, file or pattern.
        path: PathBuf,
        /// The content found.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Several columns or files that may be what is looked for.
    #[error("{}: {what} may be {}; choose with {answer}", path.display(), candidates.join(", "))]
    Ambiguous {
        /// The file or pattern.
        path: PathBuf,
        /// The item looked for.
        what: String,
        /// The candidates for it.
        candidates: Vec<String>,
        /// How the user says which it is.
        answer: String,
    },
    /// Images of classes that a model does not have.
    #[error(
        "{}: {} of {} of its classes are none of the model's {} ({}): {}; classes are matched by name",
        path.display(), unknown.len(), unknown.len() + known, model.len(), first_few(model), first_few(unknown)
    )]
    UnknownClasses {
        /// The data set.
        path: PathBuf,
        /// Classes that the model does not have.
        unknown: Vec<String>,
        /// Number of classes that it has.
        known: usize,
        /// The model's classes.
        model: Vec<String>,
    },
    /// More images that cannot be read than a loader may skip.
    #[error(
        "{} of {images} images cannot be read, and loader.max_bad = {max_bad} allows {allowed}: {}; \
         `fixnorm data check DATA` lists them all",
        bad.len(), first(.bad)
    )]
    TooManyBad {
        /// The bad images found so far.
        bad: Vec<BadImage>,
        /// Images in all.
        images: usize,
        /// Share that may be skipped.
        max_bad: f64,
        /// The same in images.
        allowed: usize,
    },
    /// An image of another shape where images are not resized.
    #[error("an image of height, width and channels {found:?}, expected {expected:?}")]
    Shape {
        /// Its shape.
        found: [usize; 3],
        /// The loader's.
        expected: [usize; 3],
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
        use DataError::{Ambiguous, Spec, TooFewOfClass, UnknownData};
        matches!(self, UnknownData { .. } | Spec { .. } | Ambiguous { .. } | TooFewOfClass { .. })
    }

    /// The file it is about, and what is wrong with it.
    pub(crate) fn name_and_reason(self) -> (PathBuf, String) {
        match self {
            DataError::Read { path, source } => (path, format!("cannot be read: {source}")),
            DataError::NotAnImage { path, message } => (path, message),
            DataError::Remote { url, problem, .. } => (url.into(), problem),
            DataError::Format { path, expected, found } => {
                (path, format!("expected {expected}, found {found}"))
            }
            other => (PathBuf::new(), other.to_string()),
        }
    }

    pub(crate) fn format(path: &Path, expected: impl ToString, found: impl ToString) -> Self {
        let (expected, found) = (expected.to_string(), found.to_string());
        DataError::Format { path: path.to_owned(), expected, found }
    }

    /// Refuses what is there and no regular file: opening a pipe would wait for somebody to write into it.
    pub(crate) fn check_regular(path: &Path) -> Result<(), Self> {
        if path.exists() && !path.is_file() {
            return Err(Self::format(path, "a file", "a directory, pipe or device"));
        }
        Ok(())
    }

    /// The error for a file that its reader gave up on.
    pub(crate) fn torn(path: &Path, expected: &str, error: impl Error + 'static) -> Self {
        Self::remote(&error).unwrap_or_else(|| Self::format(path, expected, error))
    }

    /// The [`DataError::Remote`] that an error of a reader comes from, if it comes from one.
    fn remote(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(DataError::Remote { url, problem, remedy }) = error.downcast_ref() {
            let [url, problem, remedy] = [url, problem, remedy].map(String::clone);
            return Some(DataError::Remote { url, problem, remedy });
        }
        // The source of an I/O error is that of the error within it.
        let inner = match error.downcast_ref::<std::io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
        Self::remote(inner?)
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::remote(&source).unwrap_or(DataError::Read { path, source })
    }
}

/// What can be done about a part without images.
fn empty_part(split: Split) -> &'static str {
    match split {
        Split::Train => "",
        Split::Val => {
            "; fill the part or remove it: without one, some of the training images are set aside for validation"
        }
        Split::Test => "; fill the part or remove it",
    }
}

/// The first few, with what is wrong with each.
fn first(bad: &[BadImage]) -> String {
    const SHOWN: usize = 3;
    let shown =
        bad.iter().take(SHOWN).map(|bad| format!("{} ({})", bad.name.display(), bad.reason));
    let more = if bad.len() > SHOWN { ", …" } else { "" };
    shown.collect::<Vec<_>>().join(", ") + more
}

fn list(paths: &[PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(", ")
}
