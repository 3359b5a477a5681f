//! The IDX format of the MNIST family, gzipped or not.
//!
//! Four bytes of magic (0, 0, type, rank), `rank` big-endian `u32` dimensions, then the values. Only
//! unsigned bytes are read. The header is not believed: memory grows with what is there, not with what it
//! promises, and no further.
//! Not here: which files make a data set (`directory.rs`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::names::text_of;
use crate::{DataError, InMemory};

/// An array of bytes with its dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Dimensions, the last one fastest.
    pub shape: Vec<usize>,
    /// As many as the dimensions' product.
    pub values: Vec<u8>,
}

const UNSIGNED_BYTE: u8 = 0x08;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads `path`, or `path.gz` if that is what is there.
///
/// # Errors
/// A file that is missing, truncated, too long, or of another type.
pub fn read(path: &Path) -> Result<Idx, DataError> {
    let file = existing(path);
    DataError::check_regular(&file)?;
    let opened = File::open(&file).map_err(|error| unreadable(&file, error))?;
    array(BufReader::new(opened), &file)
}

/// The file that is there: `path`, gzipped, with `.idx` for `-idx`, or in a directory of its own name, as archives
/// of others have them; `path` where there is none.
pub(crate) fn existing(path: &Path) -> PathBuf {
    let name = text_of(path.file_name().unwrap_or_default());
    let dotted = path.with_file_name(name.replacen("-idx", ".idx", 1));
    let with_gz = |path: &Path| {
        let mut zipped = path.as_os_str().to_owned();
        zipped.push(".gz");
        PathBuf::from(zipped)
    };
    let inside = |path: &Path| path.join(path.file_name().unwrap_or_default());
    let plain = [path, &dotted].map(|path| [path.to_owned(), with_gz(path), inside(path)]);
    let mut all = plain.into_iter().flatten();
    all.find(|file| file.is_file()).unwrap_or_else(|| path.to_owned())
}

/// Parses an IDX file's bytes, gzipped or not; `path` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<Idx, DataError> {
    array(bytes, path)
}

fn array(mut bytes: impl BufRead, path: &Path) -> Result<Idx, DataError> {
    let start = bytes.fill_buf().map_err(|error| unreadable(path, error))?;
    if start.starts_with(&GZIP) {
        // Not `GzDecoder`: it stops after the first member and is silent about the rest.
        let torn = |error| wrong(path, "a whole gzip file", error);
        unzipped_array(MultiGzDecoder::new(bytes), path, torn)
    } else {
        unzipped_array(bytes, path, |error| unreadable(path, error))
    }
}

fn unzipped_array(
    mut bytes: impl Read,
    path: &Path,
    failed: impl Fn(io::Error) -> DataError,
) -> Result<Idx, DataError> {
    let start = up_to(&mut bytes, 4).map_err(&failed)?;
    let [0, 0, kind, rank] = start[..] else {
        return Err(wrong(path, "an IDX file", start_of(&start)));
    };
    if kind != UNSIGNED_BYTE {
        let expected = "an IDX file of unsigned bytes (type 0x08)";
        return Err(wrong(path, expected, format!("type {kind:#04x}")));
    }
    let length = 4 * usize::from(rank);
    let header = up_to(&mut bytes, length).map_err(&failed)?;
    if header.len() < length {
        let expected = format!("a header of {} bytes", 4 + length);
        return Err(wrong(path, expected, format!("{} bytes", 4 + header.len())));
    }
    let dimensions = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let shape: Vec<usize> = dimensions.map(|dimension| dimension as usize).collect();
    let Some(expected) = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size)) else {
        return Err(wrong(path, "dimensions that memory can hold", format!("{shape:?}")));
    };
    let values = up_to(&mut bytes, expected).map_err(&failed)?;
    // Read to the end even if there is enough, for gzip's checksum; only counted, not kept.
    let trailing = io::copy(&mut bytes, &mut io::sink()).map_err(&failed)?;
    let found = values.len() as u64 + trailing;
    if found != expected as u64 {
        return Err(wrong(path, format!("{expected} values for dimensions {shape:?}"), found));
    }
    Ok(Idx { shape, values })
}

/// The next bytes, at most `count`.
fn up_to(bytes: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![];
    bytes.by_ref().take(count as u64).read_to_end(&mut read)?;
    Ok(read)
}

fn unreadable(path: &Path, source: io::Error) -> DataError {
    DataError::Read { path: path.to_owned(), source }
}

fn wrong(path: &Path, expected: impl ToString, found: impl ToString) -> DataError {
    DataError::Format {
        path: path.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

fn start_of(bytes: &[u8]) -> String {
    match bytes {
        [] => "an empty file".to_owned(),
        bytes => format!("a file that starts with {bytes:02x?}"),
    }
}

/// Images `[n, h, w]` or `[n, h, w, c]` with their labels `[n]`. With `classes` known, labels are
/// checked against it.
///
/// # Errors
/// Arrays of other ranks, of different lengths, empty, or labels out of range; `files` names them.
///
/// # Panics
/// If an array has not as many values as its dimensions say; [`read`] and [`parse`] give none such.
pub fn labelled(
    images: Idx,
    labels: Idx,
    files: [&Path; 2],
    classes: Option<usize>,
) -> Result<InMemory, DataError> {
    let [image_file, label_file] = files;
    let shape = match images.shape[..] {
        [_, h, w] if h > 0 && w > 0 => [h, w, 1],
        [_, h, w, c @ (1 | 3)] if h > 0 && w > 0 => [h, w, c],
        _ => {
            let expected = "dimensions [n, h, w] or [n, h, w, 1 or 3]";
            return Err(wrong(image_file, expected, format!("{:?}", images.shape)));
        }
    };
    let count = images.shape[0];
    if labels.shape != [count] {
        let expected = format!("a label for each of {count} images in {}", image_file.display());
        return Err(wrong(label_file, expected, format!("dimensions {:?}", labels.shape)));
    }
    if count == 0 {
        return Err(wrong(image_file, "images", "none"));
    }
    let labels: Vec<u32> = labels.values.into_iter().map(u32::from).collect();
    let above =
        |&(_, &label): &(usize, &u32)| classes.is_some_and(|classes| label as usize >= classes);
    if let Some((index, &label)) = labels.iter().enumerate().find(above) {
        return Err(DataError::Label {
            path: label_file.to_owned(),
            index,
            label,
            classes: classes.unwrap_or_default(),
        });
    }
    Ok(InMemory::new(shape, images.values, labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use std::fs;
    use std::io::Write;

    fn file(shape: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        parse(bytes, Path::new("x-idx")).unwrap_err().to_string()
    }

    #[test]
    fn plain_and_gzipped_give_the_same() {
        let bytes = file(&[2, 3, 1], &[1, 2, 3, 4, 5, 6]);
        let expected = Idx { shape: vec![2, 3, 1], values: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(parse(&bytes, Path::new("x")).unwrap(), expected);
        assert_eq!(parse(&gzip(&bytes), Path::new("x")).unwrap(), expected);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.gz"), gzip(&bytes)).unwrap();
        assert_eq!(read(&dir.path().join("a")).unwrap(), expected);
        assert_eq!(read(&dir.path().join("a.gz")).unwrap(), expected);
        fs::write(dir.path().join("b"), &bytes).unwrap();
        assert_eq!(read(&dir.path().join("b")).unwrap(), expected);
        // A gzip file may have several members.
        let members = [gzip(&bytes[..7]), gzip(&bytes[7..])].concat();
        assert_eq!(parse(&members, Path::new("x")).unwrap(), expected);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let zipped = gzip(&bytes);
        for length in 0..bytes.len() {
            assert!(error(&bytes[..length]).starts_with("x-idx: expected "), "{length}");
        }
        for length in 2..zipped.len() {
            assert!(error(&zipped[..length]).starts_with("x-idx: expected "), "{length} zipped");
        }
        assert!(
            error(&bytes[..bytes.len() - 1])
                .ends_with("expected 6 values for dimensions [2, 3], found 5")
        );
    }

    #[test]
    fn foreign_files_are_refused() {
        let mut trailing = file(&[2], &[1, 2]);
        trailing.push(3);
        let said = "expected 2 values for dimensions [2], found 3";
        assert!(error(&trailing).ends_with(said));
        assert!(error(&gzip(&trailing)).ends_with(said));
        let behind = [gzip(&file(&[2], &[1, 2])), b"more".to_vec()].concat();
        assert!(error(&behind).contains("expected a whole gzip file"));
        assert!(error(&[0, 0, 0x0d, 1, 0, 0, 0, 0]).contains("type 0x0d"));
        assert!(error(b"\x89PNG\r\n").contains("starts with [89, 50, 4e, 47]"));
    }

    #[test]
    fn headers_that_promise_too_much_are_refused() {
        // More than a computer can count to, with and without a zero behind; more than memory holds.
        for shape in [&[u32::MAX; 3][..], &[u32::MAX, u32::MAX, u32::MAX, 0]] {
            assert!(error(&file(shape, &[1])).contains("memory can hold"));
        }
        let said = error(&file(&[u32::MAX, 1 << 30], &[1, 2, 3]));
        assert!(said.ends_with("found 3"), "{said}");
        assert!(error(&[0, 0, 8, 255, 0, 0]).ends_with("a header of 1024 bytes, found 6 bytes"));
    }

    #[test]
    fn images_and_labels_must_fit() {
        let files = [Path::new("images"), Path::new("labels")];
        let images = |shape: &[usize]| Idx {
            shape: shape.to_vec(),
            values: vec![7; shape.iter().product()],
        };
        let labels = |values: &[u8]| Idx { shape: vec![values.len()], values: values.to_vec() };
        let good = labelled(images(&[2, 3, 4, 3]), labels(&[0, 9]), files, Some(10)).unwrap();
        assert_eq!((good.len(), good.label(1)), (2, 9));
        assert_eq!(good.image(0).unwrap().pixels.len(), 36);

        let fail =
            |images, labels| labelled(images, labels, files, Some(10)).unwrap_err().to_string();
        let text = fail(images(&[2, 3, 4]), labels(&[0, 10]));
        assert_eq!(text, "labels: label 10 of image 1 is out of range, there are 10 classes");
        assert!(fail(images(&[2, 3, 4]), labels(&[0])).contains("a label for each of 2 images"));
        assert!(fail(images(&[2, 3]), labels(&[0, 1])).contains("found [2, 3]"));
        assert!(fail(images(&[2, 3, 4, 2]), labels(&[0, 1])).contains("1 or 3"));
        assert!(fail(images(&[0, 3, 4]), labels(&[])).contains("expected images, found none"));
    }
}
