//! One file of a set of shards, wherever its bytes are: at its place, or in a plain copy if it is compressed.
//! Not here: which files a set has (`shards.rs`), what is in them (`tar.rs`, `parquet.rs`).

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;
use rayon::prelude::*;

use crate::decode::read_within;
use crate::plain_tar::{self, Compression};
use crate::{DataError, LoadOptions};

/// A file that can be read; as a path, the name that its user knows it by.
#[derive(Clone, Debug)]
pub(crate) struct ShardFile {
    name: PathBuf,
    body: Body,
}

/// Where its bytes are.
#[derive(Clone, Debug)]
enum Body {
    Disk,
    /// A plain copy of a compressed file.
    Copy(PathBuf),
}

impl Deref for ShardFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.name
    }
}

/// Bytes in their order, from any place.
pub(crate) trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

impl ShardFile {
    /// A file on disk as it is.
    pub(crate) fn on_disk(path: PathBuf) -> Self {
        Self { name: path, body: Body::Disk }
    }

    /// The path of the bytes that are read.
    fn place(&self) -> &Path {
        match &self.body {
            Body::Disk => &self.name,
            Body::Copy(copy) => copy,
        }
    }

    /// Opens it. It is opened anew for each use: sets have more files than a process may have open.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) fn open(&self) -> Result<Box<dyn ReadSeek>, DataError> {
        Ok(Box::new(File::open(self.place()).map_err(DataError::read(self))?))
    }

    /// The same for the reader of Parquet files.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) fn chunks(&self) -> io::Result<Chunks> {
        Ok(Chunks(File::open(self.place())?))
    }

    /// The bytes of an image.
    ///
    /// # Errors
    /// Fewer bytes, or none that can be read.
    pub(crate) fn read(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        read_within(self.place(), offset, size)
    }
}

/// A file as the reader of Parquet files wants it.
pub(crate) struct Chunks(File);

impl Length for Chunks {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(Box::new(self.0.get_read(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// The files of these names; those that are compressed are unpacked first, unless they are already.
///
/// # Errors
/// The first file, in their order, that cannot be unpacked.
pub(crate) fn open_all(
    names: Vec<PathBuf>,
    options: &LoadOptions<'_>,
) -> Result<Vec<ShardFile>, DataError> {
    let mut files: Vec<ShardFile> = names.into_iter().map(ShardFile::on_disk).collect();
    let cache = options.cache.as_deref();
    let mut packed: Vec<(&mut ShardFile, Compression)> = vec![];
    for file in &mut files {
        let compression = file.file_name().and_then(Compression::of);
        let Some((compression, _)) = compression else { continue };
        match cache.and_then(|cache| plain_tar::find(file, cache)) {
            Some(copy) => file.body = Body::Copy(copy),
            None => packed.push((file, compression)),
        }
    }
    let missing = packed.len();
    if missing > 0 {
        (options.progress)(0, missing);
    }
    let done = AtomicUsize::new(0);
    let unpack = |(file, compression): (&mut ShardFile, Compression)| {
        file.body = Body::Copy(plain_tar::make(file, compression, cache)?);
        (options.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, missing);
        Ok(())
    };
    let unpacked: Vec<Result<(), DataError>> = packed.into_par_iter().map(unpack).collect();
    unpacked.into_iter().collect::<Result<(), _>>()?;
    Ok(files)
}
