//! Compressed tar files, `.tar.gz` and `.tar.zst`, as plain ones.
//!
//! Images are drawn at random from all shards, and nothing within a compressed file can be read by its place. So each
//! is unpacked once into the cache directory, and read there as any other shard. Copies take no more room than the bound of the
//! cache: a small file can unpack to any size.
//! Not here: that a copy is made once and whole (`copies.rs`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use zstd::stream::read::Decoder;

use crate::DataError;
use crate::copies;
use crate::names::text_of;
use crate::shard_file::ShardFile;

/// What a tar file is compressed by, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstandard,
}

/// Endings of compressed tar files.
const ENDINGS: [(&str, Compression); 4] = [
    (".tar.gz", Compression::Gzip),
    (".tgz", Compression::Gzip),
    (".tar.zst", Compression::Zstandard),
    (".tzst", Compression::Zstandard),
];

impl Compression {
    /// The compression that a file's name says, and the name of the plain file.
    pub(crate) fn of(name: &OsStr) -> Option<(Self, String)> {
        let (name, lower) = (text_of(name), text_of(name).to_ascii_lowercase());
        let (ending, compression) = ENDINGS.iter().find(|(ending, _)| lower.ends_with(ending))?;
        Some((*compression, format!("{}.tar", &name[..name.len() - ending.len()])))
    }

    fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "a gzip file",
            Compression::Zstandard => "a Zstandard file",
        }
    }

    /// The larger window is that of `zstd --long=31`.
    fn reader<'a>(self, file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
            Compression::Zstandard => {
                let mut decoder = Decoder::new(file)?;
                decoder.window_log_max(31)?;
                Box::new(decoder)
            }
        })
    }
}

/// The directory of copies in a cache.
const FORM: &str = "tar";

/// Room for copies, shared by all that unpack in this process. Other processes count what they write themselves.
pub(crate) struct Room {
    bound: u64,
    left: AtomicU64,
}

impl Room {
    /// What `bound` leaves beside the copies that are there.
    pub(crate) fn in_cache(cache: Option<&Path>, bound: u64) -> Self {
        let copies = cache.and_then(|cache| fs::read_dir(cache.join(FORM)).ok());
        let sizes = copies.into_iter().flatten().flatten().filter_map(|copy| copy.metadata().ok());
        let taken = sizes.map(|metadata| metadata.len()).sum();
        Self { bound, left: AtomicU64::new(bound.saturating_sub(taken)) }
    }

    /// Takes room for so many bytes; false, and none, if there is not enough.
    fn take(&self, bytes: usize) -> bool {
        let less = |left: u64| left.checked_sub(bytes as u64);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Why there is no copy.
enum Failure {
    Source(DataError),
    Copy(io::Error),
    Room,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Copy(error)
    }
}

/// The plain copy of `shard` in `cache`, if it is there.
pub(crate) fn find(shard: &ShardFile, cache: &Path) -> Option<PathBuf> {
    copies::place(cache, FORM, shard).filter(|path| path.is_file())
}

/// The same; it is made if it is not there.
///
/// # Errors
/// A file that is torn or not compressed so, or a copy that cannot be written or has no room.
pub(crate) fn make(
    shard: &ShardFile,
    compression: Compression,
    cache: Option<&Path>,
    room: &Room,
) -> Result<PathBuf, DataError> {
    let failed = |why: String, remedy: &str| DataError::Layout {
        path: shard.to_path_buf(),
        problem: format!("it is compressed, and it cannot be unpacked into the cache: {why}"),
        remedy: format!("{remedy}, or unpack the shards yourself"),
    };
    let unwritten = |why| failed(why, "make room there, name another directory by FIXNORM_CACHE");
    let place = cache.and_then(|cache| Some((cache, copies::place(cache, FORM, shard)?)));
    let (cache, path) = place.ok_or_else(|| unwritten("there is no cache directory".to_owned()))?;
    let open = || find(shard, cache);
    let full = || {
        let dir = cache.join(FORM);
        let why = format!("{} would hold more than {} bytes", dir.display(), room.bound);
        failed(why, "set FIXNORM_CACHE_SIZE to more, remove copies of other sets there")
    };
    let unpack = |to: &Path| unpack(shard, compression, to, room);
    copies::make(cache, &path, open, unpack).map_err(|failure| match failure {
        Failure::Source(error) => error,
        Failure::Copy(error) => unwritten(format!("{}: {error}", path.display())),
        Failure::Room => full(),
    })
}

fn unpack(
    shard: &ShardFile,
    compression: Compression,
    to: &Path,
    room: &Room,
) -> Result<(), Failure> {
    let torn =
        |error: io::Error| Failure::Source(DataError::torn(shard, compression.name(), error));
    let file = shard.open().map_err(Failure::Source)?;
    let mut reader = compression.reader(file).map_err(torn)?;
    let mut copy = File::create(to)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(torn(error)),
        };
        if !room.take(read) {
            return Err(Failure::Room);
        }
        copy.write_all(&buffer[..read])?;
    }
    Ok(copy.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataSpec, LoadOptions, Sample, Source};
    use flate2::write::GzEncoder;
    use std::fs;
    use std::sync::Arc;

    /// A plain tar file of 24 images of two classes, whose bytes name shard and number.
    fn plain(shard: usize) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(vec![]);
        for image in 0..24 {
            let mut header = ::tar::Header::new_gnu();
            let bytes = format!("{shard} {image}").repeat(1 + image);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let name = format!("{}/{shard}-{image:02}.jpg", image % 2);
            builder.append_data(&mut header, name, bytes.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Of two members, as tools that compress on several threads write it.
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let of = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(vec![], flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        [of(&bytes[..1000]), of(&bytes[1000..])].concat()
    }

    /// Of two frames.
    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        let of = |bytes: &[u8]| ::zstd::encode_all(bytes, 1).unwrap();
        [of(&bytes[..1000]), of(&bytes[1000..])].concat()
    }

    fn load(dir: &Path, cache: Option<&Path>) -> Result<Vec<(Vec<u8>, u32)>, DataError> {
        load_within(dir, cache, 1 << 30)
    }

    fn load_within(
        dir: &Path,
        cache: Option<&Path>,
        bound: u64,
    ) -> Result<Vec<(Vec<u8>, u32)>, DataError> {
        let spec: DataSpec = format!("tar:{}", dir.display()).parse()?;
        let (cache, kept) = (cache.map(Path::to_owned), Some(bound));
        let options = LoadOptions { cache, kept, ..LoadOptions::default() };
        let data = spec.load_with(&options)?;
        let bytes = |source: &Arc<dyn Source>, index| match source.sample(index).unwrap() {
            Sample::Encoded(encoded) => encoded.bytes,
            Sample::Pixels(_) => panic!("a file"),
        };
        let all = [data.train, data.val];
        let of = |source: &Arc<dyn Source>| {
            (0..source.len()).map(|i| (bytes(source, i), source.label(i))).collect::<Vec<_>>()
        };
        Ok(all.iter().flat_map(of).collect())
    }

    #[test]
    fn compressed_shards_hold_the_images_of_plain_ones() {
        let dir = tempfile::tempdir().unwrap();
        let [plain_dir, packed, cache] =
            ["plain", "packed", "cache"].map(|name| dir.path().join(name));
        for made in [&plain_dir, &packed] {
            fs::create_dir(made).unwrap();
        }
        (0..3).for_each(|i| fs::write(plain_dir.join(format!("{i}.tar")), plain(i)).unwrap());
        fs::write(packed.join("0.tar.gz"), gzip(&plain(0))).unwrap();
        fs::write(packed.join("1.tar.zst"), zstandard(&plain(1))).unwrap();
        fs::write(packed.join("2.tar"), plain(2)).unwrap();
        let expected = load(&plain_dir, None).unwrap();
        assert_eq!(expected.len(), 72);
        assert_eq!(load(&packed, Some(&cache)).unwrap(), expected);
        let copies = || {
            let all = fs::read_dir(cache.join("tar")).unwrap().map(|entry| entry.unwrap().path());
            let mut all: Vec<PathBuf> = all.collect();
            all.sort();
            all
        };
        let made = copies();
        assert_eq!(made.len(), 2);
        // They are not made again, and one that was deleted is.
        assert_eq!(load(&packed, Some(&cache)).unwrap(), expected);
        fs::remove_file(&made[0]).unwrap();
        assert_eq!(load(&packed, Some(&cache)).unwrap(), expected);
        assert_eq!(copies(), made);
        // A shard that changed is unpacked again, and the older copy removed.
        fs::write(packed.join("0.tar.gz"), gzip(&plain(7))).unwrap();
        assert_ne!(load(&packed, Some(&cache)).unwrap(), expected);
        assert_eq!(copies().len(), 2);
    }

    #[test]
    fn torn_files_and_other_content_are_named_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let [set, cache] = ["set", "cache"].map(|name| dir.path().join(name));
        let whole = [("0.tar.gz", gzip(&plain(0))), ("0.tzst", zstandard(&plain(0)))];
        for (name, bytes) in &whole {
            for (wrong, part) in [
                (&bytes[..bytes.len() / 2], format!("{name}: expected a ")),
                (&plain(0)[..], format!("{name}: expected a ")),
            ] {
                fs::create_dir_all(&set).unwrap();
                fs::write(set.join(name), wrong).unwrap();
                let said = load(&set, Some(&cache)).unwrap_err().to_string();
                assert!(said.contains(&part), "{said}");
                assert_eq!(fs::read_dir(cache.join("tar")).unwrap().count(), 0);
            }
            fs::write(set.join(name), bytes).unwrap();
            for cache in [None, Some(set.join(name))] {
                let said = load(&set, cache.as_deref()).unwrap_err().to_string();
                assert!(said.contains(name) && said.contains("FIXNORM_CACHE"), "{said}");
            }
            fs::remove_dir_all(&set).unwrap();
        }
    }

    #[test]
    fn copies_stay_within_the_bound_of_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let [set, cache] = ["set", "cache"].map(|name| dir.path().join(name));
        fs::create_dir(&set).unwrap();
        let sizes = || -> Vec<u64> {
            let copies = fs::read_dir(cache.join("tar")).unwrap();
            copies.map(|copy| copy.unwrap().metadata().unwrap().len()).collect()
        };
        // A copy that is there counts.
        let copy = plain(0).len() as u64;
        fs::write(set.join("0.tar.gz"), gzip(&plain(0))).unwrap();
        assert_eq!(load_within(&set, Some(&cache), copy).unwrap().len(), 24);
        fs::write(set.join("1.tar.gz"), gzip(&plain(1))).unwrap();
        let said = load_within(&set, Some(&cache), 2 * copy - 1).unwrap_err().to_string();
        assert!(said.contains("1.tar.gz") && said.contains("FIXNORM_CACHE_SIZE"), "{said}");
        assert_eq!(sizes(), [copy]);
        assert_eq!(load_within(&set, Some(&cache), 2 * copy).unwrap().len(), 48);
        assert_eq!(sizes(), [copy; 2]);
        // A file of kilobytes that unpacks to much more.
        let zeros = || io::repeat(0).take(64 << 20);
        let mut encoder = GzEncoder::new(vec![], flate2::Compression::fast());
        io::copy(&mut zeros(), &mut encoder).unwrap();
        for (name, bytes) in [
            ("2.tar.gz", encoder.finish().unwrap()),
            ("2.tar.zst", ::zstd::encode_all(zeros(), 1).unwrap()),
        ] {
            assert!(bytes.len() < 1 << 20, "{}", bytes.len());
            fs::write(set.join(name), bytes).unwrap();
            let said = load_within(&set, Some(&cache), 8 << 20).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("8388608 bytes"), "{said}");
            assert_eq!(sizes(), [copy; 2]);
            fs::remove_file(set.join(name)).unwrap();
        }
    }
}
