//! Blocks of remote files in a directory of bounded size.
//!
//! A directory for each version of a file has a file for each block, written under another name and renamed. Its
//! marker's time of change says when it was last used. Where a block would pass the bound, the directories that were not used for
//! longest go; those in use stay, and the block is not kept. Each process counts what it writes, and counts the
//! whole directory again after a sixteenth of the bound, so that several together exceed it by no more than that each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::BLOCK;
use super::store::Meta;
use crate::index;

/// What was used in this time may be in use.
const IN_USE: Duration = Duration::from_secs(120);

/// The time after which a use is noted again, and after which a full directory is looked at again.
const NOTED: Duration = Duration::from_secs(30);

/// The file in each directory whose time of change is that of its last use.
const MARKER: &str = "used";

#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    bound: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Directories of this data set.
    own: HashSet<PathBuf>,
    /// Bytes in all, as far as known; none before they are counted.
    bytes: Option<u64>,
    /// Bytes written since they were counted.
    written: u64,
    /// When there was last no room.
    full: Option<Instant>,
}

/// What is known of a directory.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    pub(super) fn new(root: PathBuf, bound: u64) -> Self {
        Self { root, bound, state: Mutex::default() }
    }

    /// Takes room for a block, if there is any or can be made.
    fn claim(&self, bytes: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.full.is_some_and(|full| full.elapsed() < NOTED) {
            return false;
        }
        let counted = state.bytes.filter(|_| state.written <= self.bound / 16);
        if counted.is_none_or(|counted| counted + bytes > self.bound) {
            let mut entries = self.entries();
            let mut sum: u64 = entries.iter().map(|entry| entry.bytes).sum();
            entries.sort_by_key(|entry| entry.used);
            for entry in entries {
                let idle = entry.used.elapsed().is_ok_and(|time| time > IN_USE);
                if sum + bytes > self.bound && idle && !state.own.contains(&entry.path) {
                    let _ = fs::remove_dir_all(&entry.path);
                    sum -= entry.bytes;
                }
            }
            (state.bytes, state.written) = (Some(sum), 0);
        }
        let sum = state.bytes.unwrap_or(0) + bytes;
        if sum > self.bound {
            state.full = Some(Instant::now());
            return false;
        }
        state.bytes = Some(sum);
        state.written += bytes;
        true
    }

    /// The directories that are there. What a process that was killed has left is removed.
    fn entries(&self) -> Vec<Entry> {
        let files = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let entry = |directory: fs::DirEntry| {
            let path = directory.path();
            let mut entry = Entry { path, bytes: 0, used: SystemTime::UNIX_EPOCH };
            for file in files(&entry.path) {
                let Ok(known) = file.metadata() else { continue };
                let changed = known.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let left = file.path().extension().is_some_and(|ending| ending == "tmp")
                    && changed.elapsed().is_ok_and(|time| time > IN_USE);
                if left {
                    let _ = fs::remove_file(file.path());
                    continue;
                }
                entry.bytes += known.len();
                entry.used = entry.used.max(changed);
            }
            entry
        };
        files(&self.root).map(entry).collect()
    }
}

/// The blocks of one version of a file.
#[derive(Debug)]
pub(super) struct Blocks {
    cache: Arc<Cache>,
    directory: PathBuf,
    /// When its use was last noted.
    noted: Mutex<Option<Instant>>,
}

impl Blocks {
    pub(super) fn new(cache: &Arc<Cache>, url: &str, meta: &Meta) -> Self {
        let size = meta.size.to_string();
        let name = format!("{}-{}", index::digest([url]), index::digest([&*meta.version, &*size]));
        let directory = cache.root.join(name);
        let mut state = cache.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.own.insert(directory.clone());
        drop(state);
        Self { cache: cache.clone(), directory, noted: Mutex::default() }
    }

    fn path(&self, block: &Range<u64>) -> PathBuf {
        self.directory.join((block.start / BLOCK).to_string())
    }

    /// Whether a block is there.
    pub(super) fn has(&self, block: &Range<u64>) -> bool {
        fs::metadata(self.path(block)).is_ok_and(|known| known.len() == block.end - block.start)
    }

    /// Appends the part of a block that is `within` it; false, and nothing of it, where the block is not there.
    pub(super) fn read(&self, block: &Range<u64>, within: &Range<u64>, to: &mut Vec<u8>) -> bool {
        let before = to.len();
        let size = within.end - within.start;
        let read = File::open(self.path(block)).and_then(|mut file| {
            // A file system that lost power may have a name without its bytes.
            if file.metadata()?.len() != block.end - block.start {
                return Ok(false);
            }
            file.seek(SeekFrom::Start(within.start - block.start))?;
            Ok(file.take(size).read_to_end(to)? as u64 == size)
        });
        let whole = read.unwrap_or(false);
        if whole {
            self.note();
        } else {
            to.truncate(before);
        }
        whole
    }

    /// Keeps a block where there is room for it; whether it is there now.
    pub(super) fn write(&self, block: &Range<u64>, bytes: &[u8]) -> bool {
        if !self.cache.claim(bytes.len() as u64) {
            return false;
        }
        let path = self.path(block);
        let temporary = index::temporary(&path);
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&temporary, bytes))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        self.note();
        written.is_ok()
    }

    /// Notes that it is in use.
    fn note(&self) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none_or(|noted| noted.elapsed() > NOTED) {
            *noted = Some(Instant::now());
            let marker = File::create(self.directory.join(MARKER));
            let _ = marker.and_then(|marker| marker.set_modified(SystemTime::now()));
        }
    }
}
