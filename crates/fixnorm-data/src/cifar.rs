//! CIFAR-10 in its binary version: six files of 3,073-byte records, a label and 32×32 pixels of each colour
//! in turn.
//! Not here: which of them validate (`split.rs`), getting the files (`fetch.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{DataError, DataSet, InMemory, Normalization, Source, Summary, places, split};

const SIDE: usize = 32;
const RECORD: usize = 1 + 3 * SIDE * SIDE;
/// 5,000 of 50,000 validate.
const VAL_SHARE: usize = 10;
/// The directory that the official archive unpacks to.
const INNER: &str = "cifar-10-batches-bin";
const FIRST: &str = "data_batch_1.bin";
const CLASSES: usize = 10;

/// The data set in `dir`, or in the directory of the official archive in it.
///
/// # Errors
/// Files that are missing or not whole, or labels above 9.
pub(crate) fn load(dir: &Path, name: String) -> Result<DataSet, DataError> {
    let inner = dir.join(INNER);
    let dir = if inner.join(FIRST).exists() { &inner } else { dir };
    if !dir.join(FIRST).exists()
        && let Some(error) = other_version(dir)
    {
        return Err(error);
    }
    let batches: Vec<_> =
        (1..=5).map(|batch| dir.join(format!("data_batch_{batch}.bin"))).collect();
    let train = read(&batches)?;
    let labels = train.labels();
    let (train_indices, val) = split::balanced(&labels, labels.len() / VAL_SHARE);
    if val.is_empty() {
        let expected = format!("at least {VAL_SHARE} images in all batches");
        return Err(DataError::format(&batches[0], expected, labels.len()));
    }
    let (val, train) = (train.subset(val), train.subset(train_indices));
    let test = read(&[dir.join("test_batch.bin")])?;
    let class_names = class_names(&dir.join("batches.meta.txt"))?;
    let counts = [
        Some((train.len(), "data_batch_1 to 5")),
        Some((val.len(), "a tenth of data_batch_1 to 5")),
        Some((test.len(), "test_batch")),
    ];
    Ok(DataSet {
        summary: Summary::new(&name, counts, &class_names, "numbers in the files"),
        name,
        // As the field has it: over the official 50,000, rounded to four digits.
        normalization: Normalization {
            mean: vec![0.4914, 0.4822, 0.4465],
            std: vec![0.2470, 0.2435, 0.2616],
        },
        val: Arc::new(val),
        train: Arc::new(train),
        test: Some(Arc::new(test)),
        shape: Some([SIDE, SIDE, 3]),
        class_names,
    })
}

/// The error for a `dir` that holds another version of CIFAR.
fn other_version(dir: &Path) -> Option<DataError> {
    const KNOWN: [(&str, &str, &str); 5] = [
        (
            "data_batch_1",
            "the Python version",
            "fetch the binary version: fixnorm data fetch cifar10",
        ),
        (
            "cifar-10-batches-py",
            "the Python version",
            "fetch the binary version: fixnorm data fetch cifar10",
        ),
        ("cifar-10-binary.tar.gz", "an archive", "unpack it"),
        ("train.bin", "the binary version of CIFAR-100", "name the directory of CIFAR-10"),
        ("cifar-100-binary", "the binary version of CIFAR-100", "name the directory of CIFAR-10"),
    ];
    let (name, what, remedy) = KNOWN.into_iter().find(|(name, ..)| dir.join(name).exists())?;
    let problem = format!("no {FIRST}, but {what}, {name}");
    Some(DataError::Layout { path: dir.to_owned(), problem, remedy: remedy.to_owned() })
}

/// The first of the usual places that has the set.
pub(crate) fn find() -> Result<PathBuf, DataError> {
    let has = |dir: &Path| dir.join(FIRST).exists() || dir.join(INNER).join(FIRST).exists();
    places::find("cifar10", has)
}

fn read(files: &[PathBuf]) -> Result<InMemory, DataError> {
    let (mut pixels, mut labels) = (vec![], vec![]);
    for file in files {
        DataError::check_regular(file)?;
        let bytes = fs::read(file).map_err(DataError::read(file))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            let expected = format!("records of {RECORD} bytes");
            return Err(DataError::format(file, expected, format!("{} bytes", bytes.len())));
        }
        for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
            let (label, planes) = (u32::from(record[0]), &record[1..]);
            if label as usize >= CLASSES {
                let path = file.clone();
                return Err(DataError::Label { path, index, label, classes: CLASSES });
            }
            labels.push(label);
            let plane = SIDE * SIDE;
            pixels.extend(
                (0..plane).flat_map(|i| [planes[i], planes[plane + i], planes[2 * plane + i]]),
            );
        }
    }
    Ok(InMemory::new([SIDE, SIDE, 3], pixels, labels))
}

fn class_names(file: &Path) -> Result<Vec<String>, DataError> {
    let text = fs::read_to_string(file).map_err(DataError::read(file))?;
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    match names.len() {
        CLASSES => Ok(names),
        found => Err(DataError::format(file, format!("{CLASSES} names, one a line"), found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(per_batch: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (number, name) in (0..).zip([
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
            "test_batch",
        ]) {
            let record = |i: usize| {
                let colour = |channel: usize| vec![(number * 40 + i + channel) as u8; SIDE * SIDE];
                [vec![(i % CLASSES) as u8], colour(0), colour(100), colour(200)].concat()
            };
            let bytes: Vec<u8> = (0..per_batch).flat_map(record).collect();
            fs::write(dir.path().join(format!("{name}.bin")), bytes).unwrap();
        }
        let names: Vec<String> = (0..CLASSES).map(|class| format!("class {class}")).collect();
        fs::write(dir.path().join("batches.meta.txt"), names.join("\n") + "\n\n").unwrap();
        dir
    }

    #[test]
    fn records_become_interleaved_pixels() {
        let dir = directory(20);
        let data = load(dir.path(), "cifar10".to_owned()).unwrap();
        assert_eq!((data.train.len(), data.val.len()), (90, 10));
        let test = data.test.unwrap();
        assert_eq!((test.len(), test.label(13)), (20, 3));
        let image = test.image(13).unwrap();
        assert_eq!((image.height, image.width, image.channels), (32, 32, 3));
        assert_eq!(image.pixels[..6], [213, 57, 157, 213, 57, 157]);
        assert_eq!(data.class_names[9], "class 9");
        // The official archive's directory within.
        let outer = tempfile::tempdir().unwrap();
        fs::rename(dir.path(), outer.path().join(INNER)).unwrap();
        assert_eq!(load(outer.path(), String::new()).unwrap().train.len(), 90);
    }

    #[test]
    fn other_versions_are_named() {
        for (name, part) in [
            ("data_batch_1", "the Python version"),
            ("cifar-10-batches-py", "data fetch cifar10"),
            ("cifar-10-binary.tar.gz", "unpack it"),
            ("train.bin", "CIFAR-100"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "").unwrap();
            let said = load(dir.path(), String::new()).err().unwrap().to_string();
            assert!(said.contains(part) && said.contains(name), "{said}");
        }
    }

    #[test]
    fn broken_files_are_named() {
        let error = |name: &str, bytes: &[u8]| {
            let dir = directory(20);
            fs::write(dir.path().join(name), bytes).unwrap();
            load(dir.path(), String::new()).err().unwrap().to_string()
        };
        let said = error("data_batch_3.bin", &[0; 3072]);
        assert!(
            said.contains("data_batch_3.bin: expected records of 3073 bytes, found 3072"),
            "{said}"
        );
        let said = error("test_batch.bin", &[10; 3073]);
        assert!(said.contains("test_batch.bin: label 10 of image 0"), "{said}");
        let said = error("batches.meta.txt", b"cat\n");
        assert!(said.contains("expected 10 names"), "{said}");
        let dir = directory(20);
        fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
        let said = load(dir.path(), String::new()).err().unwrap().to_string();
        assert!(said.starts_with("cannot read") && said.contains("data_batch_2.bin"), "{said}");
        assert!(load(directory(1).path(), String::new()).is_err());
    }
}
