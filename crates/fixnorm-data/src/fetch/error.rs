//! Why a data set could not be fetched.

use std::io;
use std::path::{Path, PathBuf};

/// A data set that could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server, or the connection to it.
    #[error(
        "cannot download {url}: {message}; what was received is kept, and fetching again resumes there"
    )]
    Download {
        /// The file.
        url: String,
        /// The error of the last attempt.
        message: String,
    },
    /// A file with other content.
    #[error("{url} is not what it should be: expected {expected}, found {found}; it was removed")]
    Content {
        /// The file.
        url: String,
        /// Its size or SHA-256.
        expected: String,
        /// The content received.
        found: String,
    },
    /// An archive that is broken, or holds what no data set should.
    #[error("{}: {message}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The fault.
        message: String,
    },
    /// The disk.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The attempts.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl FetchError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| FetchError::Io { action, path, source }
    }
}
