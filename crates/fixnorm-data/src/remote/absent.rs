//! In place of `remote.rs` where the program is built without the feature `object-store`: nothing can be opened.

use std::convert::Infallible;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use crate::names::text_of;
use crate::{DataError, LoadOptions};

/// A file that cannot be.
#[derive(Debug)]
pub(crate) struct Object(Infallible);

/// A place in it.
#[derive(Debug)]
pub(crate) struct Reader(Infallible);

/// Refuses files of servers and stores.
///
/// # Errors
/// Always, where there is one.
pub(crate) fn open_all(
    files: &[(PathBuf, bool)],
    _: &LoadOptions<'_>,
) -> Result<Vec<Arc<Object>>, DataError> {
    match files.first() {
        None => Ok(vec![]),
        Some((url, _)) => Err(DataError::Spec {
            given: text_of(url.as_os_str()),
            expected: "a program built with object stores: cargo build --release --features object-store",
        }),
    }
}

impl Object {
    pub(crate) fn size(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn version(&self) -> &str {
        match self.0 {}
    }

    pub(crate) fn beside(&self, _: &str) -> Result<Option<Vec<u8>>, DataError> {
        match self.0 {}
    }

    pub(crate) fn read(&self, _: u64, _: u64) -> io::Result<Vec<u8>> {
        match self.0 {}
    }

    pub(crate) fn prefetch(&self, _: u64, _: u64) {
        match self.0 {}
    }
}

impl Reader {
    pub(crate) fn new(object: Arc<Object>, _: u64, _: bool) -> Self {
        match object.0 {}
    }
}

impl Read for Reader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Seek for Reader {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        match self.0 {}
    }
}
