//! One file of a set of shards, wherever its bytes are: on disk, behind a URL, or in a plain copy if it is compressed.
//! Not here: which files a set has (`shards.rs`), what is in them (`tar.rs`, `parquet.rs`).

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;
use rayon::prelude::*;

use crate::decode::read_within;
use crate::names::is_url;
use crate::plain_tar::{self, Compression, Room};
use crate::remote::{self, Object, Reader};
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
    Remote(Arc<Object>),
    /// A plain copy of a compressed file, and the object that it was made of if that is elsewhere.
    Copy(PathBuf, Option<Arc<Object>>),
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

    /// The object that has its bytes, or had those of its copy.
    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        match &self.body {
            Body::Disk => None,
            Body::Remote(object) => Some(object),
            Body::Copy(_, object) => object.as_ref(),
        }
    }

    /// The place of the bytes that are read: a path, or an object.
    fn place(&self) -> Result<&Path, &Arc<Object>> {
        match &self.body {
            Body::Disk => Ok(&self.name),
            Body::Remote(object) => Err(object),
            Body::Copy(copy, _) => Ok(copy),
        }
    }

    /// Reads from its plain copy from now on.
    fn unpacked(&mut self, copy: PathBuf) {
        self.body = Body::Copy(copy, self.object().cloned());
    }

    /// The bytes of a small file in the same directory, if there is one.
    ///
    /// # Errors
    /// One that is there and cannot be read.
    pub(crate) fn beside(&self, name: &str) -> Result<Option<Vec<u8>>, DataError> {
        if let Some(object) = self.object() {
            return object.beside(name);
        }
        let path = self.with_file_name(name);
        if !path.exists() {
            return Ok(None);
        }
        DataError::check_regular(&path)?;
        fs::read(&path).map(Some).map_err(DataError::read(&path))
    }

    /// Opens it. It is opened anew for each use: sets have more files than a process may have open.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) fn open(&self) -> Result<Box<dyn ReadSeek>, DataError> {
        Ok(match self.place() {
            Ok(path) => Box::new(File::open(path).map_err(DataError::read(self))?),
            Err(object) => Box::new(Reader::new(object.clone(), 0, true)),
        })
    }

    /// The same for the reader of Parquet files.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) fn chunks(&self) -> io::Result<Chunks> {
        Ok(match self.place() {
            Ok(path) => Chunks::File(File::open(path)?),
            Err(object) => Chunks::Object(object.clone()),
        })
    }

    /// The bytes of an image.
    ///
    /// # Errors
    /// Fewer bytes, or none that can be read.
    pub(crate) fn read(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        match self.place() {
            Ok(path) => read_within(path, offset, size),
            Err(object) => object.read(offset, size),
        }
    }

    /// Fetches the bytes of an image in the background, if they are elsewhere.
    pub(crate) fn prefetch(&self, offset: u64, size: u64) {
        if let Err(object) = self.place() {
            object.prefetch(offset, size);
        }
    }
}

/// A file as the reader of Parquet files wants it.
pub(crate) enum Chunks {
    File(File),
    Object(Arc<Object>),
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Chunks::File(file) => Length::len(file),
            Chunks::Object(object) => object.size(),
        }
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(match self {
            Chunks::File(file) => Box::new(file.get_read(start)?),
            Chunks::Object(object) => Box::new(Reader::new(object.clone(), start, false)),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Chunks::File(file) => file.get_bytes(start, length),
            Chunks::Object(object) => Ok(object.read(start, length as u64)?.into()),
        }
    }
}

/// The files of these names; those that are compressed are unpacked first, unless they are already.
///
/// # Errors
/// The first file, in their order, that is elsewhere and not there, or that cannot be unpacked.
pub(crate) fn open_all(
    names: Vec<PathBuf>,
    options: &LoadOptions<'_>,
) -> Result<Vec<ShardFile>, DataError> {
    let compression = |name: &Path| name.file_name().and_then(Compression::of);
    // Of a compressed file its copy is kept.
    let kept = |name: &PathBuf| (name.clone(), compression(name).is_none());
    let urls: Vec<_> = names.iter().filter(|name| is_url(name)).map(kept).collect();
    let mut objects = remote::open_all(&urls, options)?.into_iter();
    let mut open = |name: PathBuf| match is_url(&name).then(|| objects.next()).flatten() {
        Some(object) => ShardFile { name, body: Body::Remote(object) },
        None => ShardFile::on_disk(name),
    };
    let mut files: Vec<ShardFile> = names.into_iter().map(&mut open).collect();
    let cache = options.cache.as_deref();
    let mut packed: Vec<(&mut ShardFile, Compression)> = vec![];
    for file in &mut files {
        let Some((compression, _)) = compression(file) else { continue };
        match cache.and_then(|cache| plain_tar::find(file, cache)) {
            Some(copy) => file.unpacked(copy),
            None => packed.push((file, compression)),
        }
    }
    let missing = packed.len();
    if missing == 0 {
        return Ok(files);
    }
    (options.progress)(0, missing);
    let room = Room::in_cache(cache, options.bound()?);
    let done = AtomicUsize::new(0);
    let unpack = |(file, compression): (&mut ShardFile, Compression)| {
        file.unpacked(plain_tar::make(file, compression, cache, &room)?);
        (options.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, missing);
        Ok(())
    };
    let unpacked: Vec<Result<(), DataError>> = packed.into_par_iter().map(unpack).collect();
    unpacked.into_iter().collect::<Result<(), _>>()?;
    Ok(files)
}
