//! Files behind HTTP and in S3-compatible object stores, read by ranges.
//!
//! Images are drawn at random from all files, so what of them fits into the bound of the cache is kept on disk in blocks of
//! 1 MiB, from the first byte that the index reads on; later epochs read the disk. Of files that do not fit every image is
//! a range of its own, which is fetched ahead and kept nowhere: to replace blocks by others would only fetch more, because an epoch
//! takes every image once.
//! Not here: requests (`remote/store.rs`, `remote/http.rs`), the directory (`remote/cache.rs`), fetching ahead
//! (`remote/ahead.rs`).

mod ahead;
mod cache;
mod http;
mod reader;
mod store;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::bytes::Bytes;

use crate::{DataError, LoadOptions, names};
use ahead::Ahead;
use cache::{Blocks, Cache};
pub(crate) use reader::Reader;
use store::{Location, Meta, Stores};

/// Bytes of a block that is kept.
const BLOCK: u64 = 1 << 20;

/// Requests at once.
const CONNECTIONS: usize = 16;

/// One file of a server or a store, as it was when the data set was opened.
#[derive(Debug)]
pub(crate) struct Object {
    location: Location,
    meta: Meta,
    kept: Option<Blocks>,
    ahead: Arc<Ahead>,
    /// Another one for each object of the process.
    number: usize,
}

/// Opens files, which says how long they are. `keep` says whether the blocks of a file are worth keeping.
///
/// # Errors
/// The first, in their order, that is not there or may not be read.
pub(crate) fn open_all(
    files: &[(PathBuf, bool)],
    options: &LoadOptions<'_>,
) -> Result<Vec<Arc<Object>>, DataError> {
    if files.is_empty() {
        return Ok(vec![]);
    }
    let bound = options.bound()?;
    let stores = Stores::new(options.settings);
    let located: Vec<Location> = files
        .iter()
        .map(|(url, _)| stores.locate(&names::text_of(url.as_os_str())))
        .collect::<Result<_, _>>()?;
    let metas = each(&located, Location::meta)?;
    let cache = options.cache.as_ref().map(|dir| Arc::new(Cache::new(dir.join("remote"), bound)));
    let ahead = Arc::new(Ahead::default());
    let mut sum = 0;
    let objects = located.into_iter().zip(metas).zip(files).map(|((location, meta), (_, keep))| {
        let fits = sum + meta.size <= bound;
        let kept = cache.as_ref().filter(|_| *keep && fits);
        let kept = kept.map(|cache| Blocks::new(cache, &location.url, &meta));
        if kept.is_some() {
            sum += meta.size;
        }
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Arc::new(Object { location, meta, kept, ahead: ahead.clone(), number })
    });
    Ok(objects.collect())
}

/// The results of `ask` for each of `all`, asked on several threads.
///
/// # Errors
/// The first, in their order.
fn each<T: Sync, R: Send>(
    all: &[T],
    ask: impl Fn(&T) -> Result<R, DataError> + Sync,
) -> Result<Vec<R>, DataError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut own = vec![];
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = all.get(place) else { return own };
            own.push((place, ask(item)));
        }
    };
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS.min(all.len())).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().map_err(|_| DataError::Worker("a request panicked".to_owned()))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, result)| result).collect()
}

impl Object {
    pub(crate) fn size(&self) -> u64 {
        self.meta.size
    }

    /// What is different where its content is.
    pub(crate) fn version(&self) -> &str {
        &self.meta.version
    }

    /// A small file in the same directory, if there is one that may be read.
    ///
    /// # Errors
    /// A store that cannot be reached.
    pub(crate) fn beside(&self, name: &str) -> Result<Option<Vec<u8>>, DataError> {
        self.location.beside(name).whole()
    }

    /// The bytes of an image.
    ///
    /// # Errors
    /// Fewer bytes in the file, or none that can be had; the latter is a [`DataError::Remote`].
    pub(crate) fn read(self: &Arc<Self>, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let range = offset..offset.saturating_add(size);
        if range.end > self.meta.size {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some(kept) = &self.kept else {
            return Ok(self.piece(range)?.into());
        };
        let mut bytes = Vec::with_capacity(size as usize);
        for block in self.blocks(&range) {
            let within = range.start.max(block.start)..range.end.min(block.end);
            if !kept.read(&block, &within, &mut bytes) {
                let whole = self.piece(block.clone())?;
                let [start, end] = [within.start, within.end].map(|at| (at - block.start) as usize);
                bytes.extend_from_slice(&whole[start..end]);
            }
        }
        Ok(bytes)
    }

    /// Fetches the bytes of an image in the background.
    pub(crate) fn prefetch(self: &Arc<Self>, offset: u64, size: u64) {
        let range = offset..offset.saturating_add(size).min(self.meta.size);
        if range.is_empty() {
            return;
        }
        match &self.kept {
            None => self.ahead.fetch(self, range),
            Some(kept) => self
                .blocks(&range)
                .filter(|block| !kept.has(block))
                .for_each(|block| self.ahead.fetch(self, block)),
        }
    }

    /// The blocks that have bytes of a range.
    fn blocks(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let (first, end, size) = (range.start / BLOCK, range.end.div_ceil(BLOCK), self.meta.size);
        let end = if range.is_empty() { first } else { end };
        (first..end).map(move |block| block * BLOCK..((block + 1) * BLOCK).min(size))
    }

    /// The bytes of a range, once they are there. Of a file that is kept the range is a block.
    fn piece(self: &Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        self.ahead.get(self, range).map_err(io::Error::other)
    }

    /// The bytes of a range from disk or by a request, and whether they are on disk now.
    fn fetch(&self, range: &Range<u64>) -> Result<(Bytes, bool), DataError> {
        let Some(kept) = &self.kept else {
            return Ok((self.location.get(range, &self.meta)?, false));
        };
        let mut bytes = vec![];
        if kept.read(range, range, &mut bytes) {
            return Ok((bytes.into(), true));
        }
        let bytes = self.location.get(range, &self.meta)?;
        let written = kept.write(range, &bytes);
        Ok((bytes, written))
    }
}
