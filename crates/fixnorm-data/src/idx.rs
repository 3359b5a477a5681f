//! The IDX format of the MNIST family, gzipped or not.
//!
//! Four bytes of magic (0, 0, type, rank), `rank` big-endian `u32` dimensions, then the values. Only
//! unsigned bytes are read. The length is checked against the header before anything is believed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

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
    let bytes = fs::read(&file).map_err(|source| DataError::Read { path: file.clone(), source })?;
    parse(&bytes, &file)
}

/// `path` if it exists, else `path.gz` if that does, else `path`.
fn existing(path: &Path) -> PathBuf {
    let mut zipped = path.as_os_str().to_owned();
    zipped.push(".gz");
    let zipped = PathBuf::from(zipped);
    match !path.exists() && zipped.exists() {
        true => zipped,
        false => path.to_owned(),
    }
}

/// Parses an IDX file's bytes, gzipped or not; `path` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<Idx, DataError> {
    let unzipped;
    let bytes = match bytes.starts_with(&GZIP) {
        false => bytes,
        true => {
            let mut all = vec![];
            let done = GzDecoder::new(bytes).read_to_end(&mut all);
            done.map_err(|error| wrong(path, "a whole gzip file", error))?;
            unzipped = all;
            &unzipped[..]
        }
    };
    let [0, 0, kind, rank, rest @ ..] = bytes else {
        return Err(wrong(path, "an IDX file", start_of(bytes)));
    };
    if *kind != UNSIGNED_BYTE {
        return Err(wrong(
            path,
            "an IDX file of unsigned bytes (type 0x08)",
            format!("type {kind:#04x}"),
        ));
    }
    let rank = usize::from(*rank);
    if rest.len() < 4 * rank {
        return Err(wrong(
            path,
            format!("a header of {} bytes", 4 + 4 * rank),
            format!("{} bytes", bytes.len()),
        ));
    }
    let (header, values) = rest.split_at(4 * rank);
    let dimensions = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let shape: Vec<usize> = dimensions.map(|dimension| dimension as usize).collect();
    let expected =
        shape.iter().try_fold(1usize, |product, &dimension| product.checked_mul(dimension));
    if expected != Some(values.len()) {
        let expected = expected.map_or_else(|| "more".to_owned(), |expected| expected.to_string());
        return Err(wrong(
            path,
            format!("{expected} values for dimensions {shape:?}"),
            values.len(),
        ));
    }
    Ok(Idx { shape, values: values.to_vec() })
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
        bytes => format!("a file that starts with {:02x?}", &bytes[..bytes.len().min(4)]),
    }
}

/// Pictures `[n, h, w]` or `[n, h, w, c]` with their labels `[n]`. With `classes` known, labels are
/// checked against it.
///
/// # Errors
/// Arrays of other ranks, of different lengths, empty, or labels out of range; `files` names them.
pub fn pictures(
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
        let expected = format!("a label for each of {count} pictures in {}", image_file.display());
        return Err(wrong(label_file, expected, format!("dimensions {:?}", labels.shape)));
    }
    if count == 0 {
        return Err(wrong(image_file, "pictures", "none"));
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
        assert!(error(&trailing).contains("expected 2 values"));
        assert!(error(&[0, 0, 0x0d, 1, 0, 0, 0, 0]).contains("type 0x0d"));
        assert!(error(b"\x89PNG\r\n").contains("starts with [89, 50, 4e, 47]"));
        // A header that promises more than any memory holds.
        assert!(error(&file(&[u32::MAX; 3], &[1])).contains("found 1"));
    }

    #[test]
    fn pictures_and_labels_must_fit() {
        let files = [Path::new("images"), Path::new("labels")];
        let images = |shape: &[usize]| Idx {
            shape: shape.to_vec(),
            values: vec![7; shape.iter().product()],
        };
        let labels = |values: &[u8]| Idx { shape: vec![values.len()], values: values.to_vec() };
        let good = pictures(images(&[2, 3, 4, 3]), labels(&[0, 9]), files, Some(10)).unwrap();
        assert_eq!((good.len(), good.label(1)), (2, 9));
        assert_eq!(good.picture(0).unwrap().pixels.len(), 36);

        let fail =
            |images, labels| pictures(images, labels, files, Some(10)).unwrap_err().to_string();
        let text = fail(images(&[2, 3, 4]), labels(&[0, 10]));
        assert_eq!(text, "labels: label 10 of picture 1 is out of range, there are 10 classes");
        assert!(fail(images(&[2, 3, 4]), labels(&[0])).contains("a label for each of 2 pictures"));
        assert!(fail(images(&[2, 3]), labels(&[0, 1])).contains("found [2, 3]"));
        assert!(fail(images(&[2, 3, 4, 2]), labels(&[0, 1])).contains("1 or 3"));
        assert!(fail(images(&[0, 3, 4]), labels(&[])).contains("expected pictures, found none"));
    }
}
