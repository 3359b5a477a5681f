//! Decoded images kept between epochs, in memory or in a directory, up to a number of bytes.
//!
//! What is kept is the part of a transform that is the same in every epoch, so that a cache changes no result: whether an
//! image comes from it, is made anew because it is full, or was kept by an earlier process. In a directory an image
//! is named by a hash of its file's bytes and of that part of the transform: an exchanged file is another image, and runs
//! and data sets share. Nothing is ever removed.
//! Not here: what that part is (`transform.rs`).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::bad;
use crate::index::temporary;
use crate::{DataError, Image, Sample, Source};

/// A place for decoded images, which several loaders may share.
#[derive(Debug)]
pub struct Cache {
    place: Place,
    /// Bytes that may still be kept.
    left: AtomicU64,
}

#[derive(Debug)]
enum Place {
    Memory,
    Directory(PathBuf),
}

impl Cache {
    /// In memory, at most `bytes` of pixels.
    pub fn memory(bytes: u64) -> Self {
        Self { place: Place::Memory, left: bytes.into() }
    }

    /// In a directory, which is made if it is not there and then holds at most `bytes`, with what earlier processes left.
    ///
    /// # Errors
    /// A directory that cannot be made or listed.
    pub fn directory(dir: &Path, bytes: u64) -> Result<Self, DataError> {
        let used =
            fs::create_dir_all(dir).and_then(|()| size(dir)).map_err(DataError::read(dir))?;
        Ok(Self {
            place: Place::Directory(dir.to_owned()),
            left: bytes.saturating_sub(used).into(),
        })
    }

    /// Takes bytes from what is left; false if there are not as many.
    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Bytes of the files in a directory of directories.
fn size(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            size(&entry.path())?
        } else {
            // Another process may be renaming it.
            entry.metadata().map_or(0, |of| of.len())
        };
    }
    Ok(sum)
}

/// The images of one source, each as one transform prepares it.
#[derive(Debug)]
pub(crate) struct Kept {
    cache: Arc<Cache>,
    /// In memory, by index; empty for a directory.
    images: Vec<OnceLock<Image>>,
    /// Identifies what is done to the images.
    pub(crate) key: String,
}

impl Kept {
    /// For `count` images, prepared as `key` says.
    pub(crate) fn new(cache: Arc<Cache>, count: usize, key: String) -> Self {
        let count = if matches!(cache.place, Place::Memory) { count } else { 0 };
        Self { cache, images: (0..count).map(|_| OnceLock::new()).collect(), key }
    }

    /// The image of an index, kept or made by `prepare`, and then kept if there is room.
    ///
    /// # Errors
    /// Those of the source and of `prepare`.
    pub(crate) fn image(
        &self,
        source: &dyn Source,
        index: usize,
        prepare: impl FnOnce(Sample) -> Result<Image, DataError>,
    ) -> Result<Image, DataError> {
        match &self.cache.place {
            Place::Memory => self.in_memory(source, index, prepare),
            Place::Directory(dir) => bad::read(source, index, |sample| match &sample {
                // In memory already, or in a file that needs no decoding.
                Sample::Pixels(_) => prepare(sample),
                Sample::Encoded(encoded) => {
                    let file = dir.join(self.name(&encoded.bytes));
                    if let Some(image) = read(&file) {
                        return Ok(image);
                    }
                    let image = prepare(sample)?;
                    self.write(&file, &image);
                    Ok(image)
                }
            }),
        }
    }

    /// Whether an image is at hand without its source.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.images.get(index).is_some_and(|slot| slot.get().is_some())
    }

    fn in_memory(
        &self,
        source: &dyn Source,
        index: usize,
        prepare: impl FnOnce(Sample) -> Result<Image, DataError>,
    ) -> Result<Image, DataError> {
        let slot = &self.images[index];
        if let Some(image) = slot.get() {
            return Ok(image.clone());
        }
        let image = bad::read(source, index, prepare)?;
        let bytes = image.pixels.len() as u64;
        if self.cache.take(bytes) && slot.set(image.clone()).is_err() {
            // Another thread was faster.
            self.cache.give_back(bytes);
        }
        Ok(image)
    }

    /// The file of an image, in one of 256 directories.
    fn name(&self, bytes: &[u8]) -> PathBuf {
        let digest = Sha256::new().chain_update(&self.key).chain_update([0]).chain_update(bytes);
        let digits: String =
            digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Path::new(&digits[..2]).join(&digits[2..])
    }

    /// Writes an image if there is room. One that cannot be written is made anew the next time.
    fn write(&self, file: &Path, image: &Image) {
        let bytes = (HEADER + image.pixels.len()) as u64;
        if !self.cache.take(bytes) {
            return;
        }
        let temporary = temporary(file);
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let mut out = File::create(&temporary)?;
            out.write_all(&header(image))?;
            out.write_all(&image.pixels)?;
            fs::rename(&temporary, file)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
            self.cache.give_back(bytes);
        }
    }
}

/// The first bytes of a file; the number is the version.
const MAGIC: &[u8; 16] = b"fixnorm image 1\n";

/// Bytes before the pixels: the magic number, height, width, channels, and the pixels' checksum.
const HEADER: usize = MAGIC.len() + 4 * 4;

fn header(image: &Image) -> Vec<u8> {
    let sides = [image.height, image.width, image.channels].map(|side| side as u32);
    let numbers = [sides[0], sides[1], sides[2], crc32c::crc32c(&image.pixels)];
    let mut bytes = MAGIC.to_vec();
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

/// The image of a file, if it is there and whole.
fn read(file: &Path) -> Option<Image> {
    let mut file = File::open(file).ok()?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let (magic, numbers) = header.split_at(MAGIC.len());
    let number = |at: usize| Some(u32::from_le_bytes(*numbers.as_chunks::<4>().0.get(at)?));
    let side = |at: usize| number(at).map(|side| side as usize);
    let (height, width, channels) = (side(0)?, side(1)?, side(2)?);
    let length = file.metadata().ok()?.len().checked_sub(HEADER as u64)?;
    let expected = height.checked_mul(width)?.checked_mul(channels)?;
    if magic != MAGIC || length != expected as u64 {
        return None;
    }
    let mut pixels = Vec::with_capacity(expected);
    file.read_to_end(&mut pixels).ok()?;
    let whole = pixels.len() == expected && crc32c::crc32c(&pixels) == number(3)?;
    whole.then_some(Image { height, width, channels, pixels })
}

#[cfg(test)]
mod tests;
