//! The images of a Parquet file as plain bytes, copied once, where its pages are too large to read one for
//! each image.
//!
//! A file in the user's cache directory: the images one after another, the offset of each and of the end,
//! their number, and a magic number, all little-endian. It takes as much room as the images. Not here: when
//! it is worth that (`parquet.rs`), that it is made once and whole (`copies.rs`).

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::copies;
use crate::decode::read_within;
use crate::shard_file::ShardFile;

/// The last bytes; the number is the version.
const MAGIC: &[u8; 16] = b"fixnorm spill 1\n";

/// Its directory in the cache.
const FORM: &str = "parquet";

/// Images in a file of ours.
#[derive(Debug)]
pub(crate) struct Spill {
    path: PathBuf,
    offsets: Vec<u64>,
}

/// Takes the next image.
pub(crate) type Put<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

impl Spill {
    /// The copy of `shard`'s images in `cache`, if it is there, whole and of the file as it is now.
    pub(crate) fn open(cache: &Path, shard: &ShardFile) -> Option<Self> {
        let path = copies::place(cache, FORM, shard)?;
        let mut file = File::open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut tail = [0; 24];
        file.seek(SeekFrom::End(-(tail.len() as i64))).ok()?;
        file.read_exact(&mut tail).ok()?;
        let (count, magic) = tail.split_first_chunk::<8>()?;
        let count = u64::from_le_bytes(*count);
        let table = count.checked_add(1)?.checked_mul(8)?;
        let end = length.checked_sub(tail.len() as u64)?.checked_sub(table)?;
        file.seek(SeekFrom::Start(end)).ok()?;
        let mut bytes = vec![];
        file.take(table).read_to_end(&mut bytes).ok()?;
        let (offsets, _) = bytes.as_chunks::<8>();
        let offsets: Vec<u64> = offsets.iter().map(|offset| u64::from_le_bytes(*offset)).collect();
        let whole = magic == MAGIC && offsets.is_sorted() && offsets.last() == Some(&end);
        whole.then_some(Self { path, offsets })
    }

    /// Makes the copy: `write` puts every image. What cannot be written is left, and nothing of it.
    pub(crate) fn make(
        cache: &Path,
        shard: &ShardFile,
        write: impl FnOnce(Put<'_>) -> io::Result<()>,
    ) -> Option<Self> {
        let path = copies::place(cache, FORM, shard)?;
        copies::make(cache, &path, || Self::open(cache, shard), |to| fill(to, write)).ok()
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The bytes of an image.
    pub(crate) fn read(&self, row: usize) -> io::Result<Vec<u8>> {
        let (start, end) = (self.offsets[row], self.offsets[row + 1]);
        read_within(&self.path, start, end - start)
    }
}

fn fill(path: &Path, write: impl FnOnce(Put<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut offsets = vec![0];
    let mut end = 0;
    write(&mut |bytes| {
        end += bytes.len() as u64;
        offsets.push(end);
        file.write_all(bytes)
    })?;
    for offset in &offsets {
        file.write_all(&offset.to_le_bytes())?;
    }
    file.write_all(&(offsets.len() as u64 - 1).to_le_bytes())?;
    file.write_all(MAGIC)?;
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn images_come_back_and_torn_or_older_copies_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, shard) =
            (dir.path().join("cache"), ShardFile::on_disk(dir.path().join("a.parquet")));
        fs::write(&*shard, "one").unwrap();
        assert!(Spill::open(&cache, &shard).is_none());
        let images = [&b"first"[..], b"", b"third"];
        let make =
            || Spill::make(&cache, &shard, |put| images.iter().try_for_each(|bytes| put(bytes)));
        let check = |spill: Spill| {
            assert_eq!(spill.len(), 3);
            (0..3).for_each(|row| assert_eq!(spill.read(row).unwrap(), images[row]));
            spill.path
        };
        let path = check(make().unwrap());
        check(Spill::open(&cache, &shard).unwrap());
        let whole = fs::read(&path).unwrap();
        for kept in [0, 5, 20, whole.len() - 1] {
            fs::write(&path, &whole[..kept]).unwrap();
            assert!(Spill::open(&cache, &shard).is_none(), "{kept}");
        }
        fs::write(&*shard, "changed").unwrap();
        assert!(Spill::open(&cache, &shard).is_none());
        check(make().unwrap());
        // The older one is gone.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // What is there is not made again.
        let again = Spill::make(&cache, &shard, |_| Err(io::Error::other("torn")));
        assert!(again.is_some());
        fs::write(&*shard, "changed again").unwrap();
        let failed = Spill::make(&cache, &shard, |_| Err(io::Error::other("torn")));
        assert!(failed.is_none() && Spill::open(&cache, &shard).is_none());
        assert!(Spill::make(&shard.join("below"), &shard, |_| Ok(())).is_none());
    }
    #[test]
    fn of_many_that_start_at_once_one_copies() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, shard) =
            (dir.path().join("cache"), ShardFile::on_disk(dir.path().join("a.parquet")));
        fs::write(&*shard, "one").unwrap();
        let copies = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let spill = Spill::make(&cache, &shard, |put| {
                        copies.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        put(b"bytes")
                    });
                    assert_eq!(spill.unwrap().read(0).unwrap(), b"bytes");
                });
            }
        });
        assert_eq!(copies.into_inner(), 1);
        assert_eq!(fs::read_dir(cache.join("parquet")).unwrap().count(), 1);
    }
}
