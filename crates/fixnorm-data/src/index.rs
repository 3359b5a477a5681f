//! An index of the files of a set, made once and kept between runs.
//!
//! One file in the user's cache directory holds, for each file of the set, its path, size and time of change
//! with what was found in it; where these differ, that file alone is looked at again. An index that is torn,
//! of another version or cannot be written costs time and nothing else.
//! Not here: what is looked for (`tar.rs`, `parquet.rs`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names::text_of;
use crate::shard_file::ShardFile;
use crate::{DataError, copies};

/// How a data set is loaded.
#[derive(Clone)]
pub struct LoadOptions<'a> {
    /// Where indices are kept; none to make them anew each time.
    pub cache: Option<PathBuf>,
    /// Called with how many of how many files are indexed, from several threads, first with 0. Never
    /// called where nothing needs to be indexed.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
    /// The most bytes of files of servers and object stores that `cache` keeps, and the most of unpacked copies; what
    /// `$FIXNORM_CACHE_SIZE` says, or else 32 GiB, if left out.
    pub kept: Option<u64>,
    /// Settings of S3-compatible stores by the names of their environment variables, `AWS_REGION` and others; the environment's if
    /// left out.
    pub settings: Option<&'a [(String, String)]>,
}

impl Default for LoadOptions<'_> {
    /// Indices in [`cache_dir`], no word of progress.
    fn default() -> Self {
        Self { cache: cache_dir(), progress: &|_, _| {}, kept: None, settings: None }
    }
}

/// Where indices are kept: `$FIXNORM_CACHE`, or `fixnorm` in the user's cache directory, where there is one.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(own) = set("FIXNORM_CACHE") {
        return Some(own);
    }
    let caches = match std::env::consts::OS {
        "windows" => set("LOCALAPPDATA"),
        "macos" => std::env::home_dir().map(|home| home.join("Library/Caches")),
        _ => set("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache"))),
    };
    caches.map(|caches| caches.join("fixnorm"))
}

/// The most bytes that are kept where nothing else is said.
const KEPT: u64 = 32 << 30;

impl LoadOptions<'_> {
    /// The most bytes that are kept of remote files, and of unpacked copies.
    ///
    /// # Errors
    /// A value of `$FIXNORM_CACHE_SIZE` that is no number of bytes.
    pub(crate) fn bound(&self) -> Result<u64, DataError> {
        self.kept.map_or_else(cache_size, Ok)
    }
}

/// The bound that `$FIXNORM_CACHE_SIZE` sets.
fn cache_size() -> Result<u64, DataError> {
    let given = std::env::var_os("FIXNORM_CACHE_SIZE").filter(|given| !given.is_empty());
    let Some(given) = given.map(|given| text_of(&given)) else { return Ok(KEPT) };
    bytes_of(&given).ok_or_else(|| {
        DataError::Config(format!(
            "FIXNORM_CACHE_SIZE: expected bytes, such as 200GiB, 500GB or 0, found `{given}`"
        ))
    })
}

/// Bytes as people write them.
fn bytes_of(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<u64>().ok()?, text[end..].trim());
    let mut letters = unit.chars();
    let power = |letter: char| Some("KMGT".find(letter.to_ascii_uppercase())? as u32 + 1);
    let factor = match (letters.next(), letters.as_str()) {
        (None, _) | (Some('B'), "") => 1,
        (Some(letter), "" | "iB") => 1024u64.pow(power(letter)?),
        (Some(letter), "B") => 1000u64.pow(power(letter)?),
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The first bytes of an index. The number is the version: of the container and of all that is kept in it.
const MAGIC: &[u8; 16] = b"fixnorm index 2\n";

/// The properties of a file that must not change while its entry is valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Fingerprint {
    /// Absolute; as text, so that one that is not UTF-8 can be written too.
    path: String,
    size: u64,
    /// Nanoseconds since 1970; 0 where the system does not tell.
    changed: u128,
}

impl Fingerprint {
    fn of(file: &ShardFile) -> Result<Self, DataError> {
        let path: &Path = file;
        if let Some(object) = file.object() {
            let (digest, size) = (Sha256::digest(object.version()), object.size());
            let changed = digest.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes));
            return Ok(Self { path: text_of(path.as_os_str()), size, changed });
        }
        let of = fs::metadata(path).map_err(DataError::read(path))?;
        let changed = of.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            path: text_of(std::path::absolute(path).map_err(DataError::read(path))?.as_os_str()),
            size: of.len(),
            changed: changed.map_or(0, |time| time.as_nanos()),
        })
    }
}

/// Returns the findings of `scan` for each of `files`, from the index where its entry is valid.
///
/// # Errors
/// The first file, in their order, that cannot be scanned.
pub(crate) fn of_each<T>(
    kind: &str,
    files: &[ShardFile],
    options: &LoadOptions<'_>,
    scan: impl Fn(&ShardFile) -> Result<T, DataError> + Sync,
) -> Result<Vec<T>, DataError>
where
    T: Serialize + DeserializeOwned + Send,
{
    let prints: Vec<_> = files.iter().map(Fingerprint::of).collect::<Result<_, _>>()?;
    let index = options.cache.as_ref().map(|cache| cache.join("index").join(name(kind, &prints)));
    let look = || -> Vec<Option<T>> {
        let mut known = index.as_deref().and_then(read::<T>).unwrap_or_default();
        prints.iter().map(|print| known.remove(print)).collect()
    };
    let mut found = look();
    // Of several processes that start at once, one reads what is elsewhere and the others wait.
    let waits = found.iter().any(Option::is_none) && files.iter().any(|f| f.object().is_some());
    let lock = options
        .cache
        .as_ref()
        .filter(|_| waits)
        .and_then(|cache| copies::locked(&cache.join("locks"), &name(kind, &prints)));
    if lock.is_some() {
        found = look();
    }
    let missing = found.iter().filter(|found| found.is_none()).count();
    if missing > 0 {
        (options.progress)(0, missing);
    }
    let done = AtomicUsize::new(0);
    let entries: Vec<Result<T, DataError>> = files
        .par_iter()
        .zip(found)
        .map(|(file, found)| match found {
            Some(found) => Ok(found),
            None => {
                let scanned = scan(file);
                (options.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, missing);
                scanned
            }
        })
        .collect();
    let entries: Vec<T> = entries.into_iter().collect::<Result<_, _>>()?;
    if let Some(index) = index
        && missing > 0
    {
        // Without an index the next run scans again: slower, not wrong.
        let _ = write(&index, &prints, &entries);
    }
    Ok(entries)
}

/// One index for each kind and set of paths. What a kind says of columns is in the digest.
fn name(kind: &str, prints: &[Fingerprint]) -> String {
    let form = kind.split('?').next().unwrap_or_default();
    let paths = prints.iter().map(|print| print.path.as_str());
    format!("{form}-{}", digest(std::iter::once(kind).chain(paths)))
}

/// A name for a file as it is now, which begins with one for its path.
pub(crate) fn name_of_version(path: &ShardFile) -> Option<String> {
    let print = Fingerprint::of(path).ok()?;
    Some(format!("{}-{:x}-{:x}", digest([print.path.as_str()]), print.size, print.changed))
}

/// A name beside `path` that no other process or thread has, also on another machine with the same cache.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    path.with_extension(format!("{}-{now:x}-{count}.tmp", std::process::id()))
}

pub(crate) fn digest<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for name in names {
        digest.update(name.as_bytes());
        digest.update([0]);
    }
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<HashMap<Fingerprint, T>> {
    let bytes = fs::read(path).ok()?;
    let (checksum, content) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let entries: Vec<(Fingerprint, T)> = postcard::from_bytes(content).ok()?;
    Some(entries.into_iter().collect())
}

fn write<T: Serialize>(path: &Path, prints: &[Fingerprint], entries: &[T]) -> Option<()> {
    let entries: Vec<(&Fingerprint, &T)> = prints.iter().zip(entries).collect();
    let content = postcard::to_stdvec(&entries).ok()?;
    let checksum = crc32c::crc32c(&content).to_le_bytes();
    fs::create_dir_all(path.parent()?).ok()?;
    // Another process may write the same one: each under a name of its own, and the last rename wins.
    let temporary = temporary(path);
    let written = fs::write(&temporary, [&MAGIC[..], &checksum, &content].concat())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Contents of the files, and which of them were looked at.
    fn scanned(
        files: &[PathBuf],
        cache: Option<&Path>,
    ) -> (Result<Vec<String>, DataError>, Vec<PathBuf>, usize) {
        let (looked, calls) = (Mutex::new(vec![]), AtomicUsize::new(0));
        let progress = |_, _| {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        let options = LoadOptions {
            cache: cache.map(Path::to_owned),
            progress: &progress,
            ..LoadOptions::default()
        };
        let files: Vec<_> = files.iter().cloned().map(ShardFile::on_disk).collect();
        let result = of_each("text", &files, &options, |path| {
            looked.lock().unwrap().push(path.to_path_buf());
            fs::read_to_string(&**path).map_err(DataError::read(path))
        });
        let mut looked = looked.into_inner().unwrap();
        looked.sort();
        (result, looked, calls.into_inner())
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let files: Vec<_> = ["a", "b", "c"].map(|name| dir.join(name)).to_vec();
        files.iter().for_each(|file| fs::write(file, file.to_str().unwrap()).unwrap());
        files
    }

    fn only_index(cache: &Path) -> PathBuf {
        let mut all = fs::read_dir(cache.join("index")).unwrap();
        let path = all.next().unwrap().unwrap().path();
        assert!(all.next().is_none());
        path
    }

    #[test]
    fn unchanged_files_are_looked_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (files, cache) = (files(dir.path()), dir.path().join("cache"));
        let (first, looked, calls) = scanned(&files, Some(&cache));
        let expected = first.unwrap();
        assert_eq!((looked.len(), calls), (3, 4));
        let (second, looked, calls) = scanned(&files, Some(&cache));
        assert_eq!((second.unwrap(), looked.len(), calls), (expected, 0, 0));
        fs::write(&files[1], "longer than it was before, by far, wherever the files lie").unwrap();
        let (third, looked, _) = scanned(&files, Some(&cache));
        assert!(third.unwrap()[1].starts_with("longer"));
        assert_eq!(looked, [files[1].clone()]);
        assert!(scanned(&files, Some(&cache)).1.is_empty());
        only_index(&cache);
    }

    #[test]
    fn torn_and_older_indices_are_made_anew_without_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let (files, cache) = (files(dir.path()), dir.path().join("cache"));
        let expected = scanned(&files, Some(&cache)).0.unwrap();
        let path = only_index(&cache);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut older = whole.clone();
        older[14] = b'0';
        for broken in [&whole[..whole.len() / 2], &whole[..3], b"", &flipped, &older] {
            fs::write(&path, broken).unwrap();
            let (found, looked, _) = scanned(&files, Some(&cache));
            assert_eq!((found.unwrap(), looked.len()), (expected.clone(), 3));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[cfg(feature = "object-store")]
    #[test]
    fn bytes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("3B", 3),
            ("2k", 2048),
            ("2kB", 2000),
            ("5 MiB", 5 << 20),
            ("200GiB", 200 << 30),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        for wrong in ["", "GiB", "-1", "1.5GiB", "3 bytes", "99999999999TiB", "2é"] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn many_may_start_at_once_and_names_need_not_be_utf8() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let mut files = files(dir.path());
        files.push(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9")));
        fs::write(&files[3], "é").unwrap();
        let expected = scanned(&files, None).0.unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(scanned(&files, Some(&cache)).0.unwrap(), expected);
                        let _ = fs::remove_dir_all(cache.join("index"));
                    }
                });
            }
        });
        assert_eq!(scanned(&files, Some(&cache)).0.unwrap(), expected);
        assert!(scanned(&files, Some(&cache)).1.is_empty());
        only_index(&cache);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        for cache in [None, Some(files[0].join("below-a-file"))] {
            for _ in 0..2 {
                let (found, looked, _) = scanned(&files, cache.as_deref());
                assert_eq!((found.unwrap().len(), looked.len()), (3, 3));
            }
        }
        fs::remove_file(&files[2]).unwrap();
        assert!(scanned(&files, None).0.unwrap_err().to_string().starts_with("cannot read"));
    }
}
