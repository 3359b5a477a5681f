//! WebDataset shards: tar files of images with their labels beside them, read in place.
//!
//! Files of one name up to its first dot belong together: an image (`.jpg`, `.jpeg`, `.png`, `.webp`) and
//! its label, a number in `.cls` or the `label` of a `.json`. Where no image has either, the directory of
//! an image within the tar file is its class. Names of numbered classes come from `classes.txt` beside the
//! shards, a name a line, if there is one.
//!
//! Images are in the order of class and name, not of shards: the same tree gives the same epochs in any
//! form. One is read by its offset, which the index keeps.
//! Not here: which file is a shard of what (`shards.rs`), the index itself (`index.rs`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::tar::{Archive, EntryType};
use serde::{Deserialize, Serialize};

use crate::decode::{MAX_FILE_BYTES, read_within};
use crate::index::LoadOptions;
use crate::parts::{self, Parts};
use crate::shards;
use crate::walk::is_image;
use crate::{DataError, DataSet, Encoded, Sample, Source};

/// An image in a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
    label: Label,
}

/// What an image is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Label {
    Number(u32),
    /// The directory within the tar file; empty where there is none.
    Directory(String),
}

/// Images in shards, by their places.
struct Tar {
    shards: Arc<Vec<PathBuf>>,
    /// Shard and member, in the order of label and name.
    members: Vec<(u32, Member)>,
    labels: Vec<u32>,
}

impl Source for Tar {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let (shard, member) = &self.members[index];
        let shard = &self.shards[*shard as usize];
        let name = shard.join(&member.name);
        if member.size > MAX_FILE_BYTES {
            let message = format!("it has more than {MAX_FILE_BYTES} bytes");
            return Err(DataError::NotAnImage { path: name, message });
        }
        match read_within(shard, member.offset, member.size) {
            Ok(bytes) => Ok(Sample::Encoded(Encoded { bytes, name })),
            Err(source) => Err(DataError::Read { path: name, source }),
        }
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }
}

/// The data set in the shards that a pattern names.
///
/// # Errors
/// Shards that are missing or no tar files, images without a label, or labels of different kinds.
pub(crate) fn load(
    pattern: &Path,
    name: String,
    options: &LoadOptions<'_>,
) -> Result<DataSet, DataError> {
    let indexed = shards::find(pattern, ".tar")?.indexed("tar", options, scan)?;
    let part = |part: Vec<(PathBuf, Vec<Member>)>| {
        let (shards, members): (Vec<_>, Vec<_>) = part.into_iter().unzip();
        let numbered = (0..).zip(members);
        let members = numbered.flat_map(|(shard, own)| own.into_iter().map(move |m| (shard, m)));
        (shards, members.collect::<Vec<(u32, Member)>>())
    };
    let [(train, mut train_members), (val, val_members), (test, test_members)] = indexed.map(part);
    let Some((_, first)) = train_members.first() else {
        return Err(DataError::NoImages { path: pattern.to_owned() });
    };
    // Where the first has a number, all must have one.
    let classes: Vec<String> = match &first.label {
        Label::Number(_) => vec![],
        Label::Directory(_) => {
            train_members.sort_by(|(_, a), (_, b)| a.label.cmp(&b.label));
            let names = train_members.iter().filter_map(|(_, member)| match &member.label {
                Label::Directory(name) => Some(name.clone()),
                Label::Number(_) => None,
            });
            let mut names: Vec<_> = names.collect();
            names.dedup();
            names
        }
    };
    let source = |shards: Vec<PathBuf>, members| sorted(shards, members, &classes);
    let first_shard = train[0].clone();
    let train = source(train, train_members)?;
    let names = match classes.is_empty() {
        true => class_names(&first_shard, &train.labels)?,
        false => classes.clone(),
    };
    let other = |shards, members: Vec<_>| -> Result<Option<Arc<dyn Source>>, DataError> {
        match members.is_empty() {
            true => Ok(None),
            false => Ok(Some(Arc::new(source(shards, members)?))),
        }
    };
    let (val, test) = (other(val, val_members)?, other(test, test_members)?);
    Parts { train: Arc::new(train), val, test }.data_set(name, pattern.to_owned(), names)
}

/// Images in the order of label, name, shard and place; `classes` are those of directories.
fn sorted(
    shards: Vec<PathBuf>,
    members: Vec<(u32, Member)>,
    classes: &[String],
) -> Result<Tar, DataError> {
    let labelled = members.into_iter().map(|(shard, member)| {
        let label = match &member.label {
            Label::Number(label) if classes.is_empty() => Ok(*label),
            Label::Directory(name) if !name.is_empty() && !classes.is_empty() => classes
                .binary_search(name)
                .map(|class| class as u32)
                .map_err(|_| ("a class of the training images", format!("`{name}`"))),
            Label::Directory(_) => Err(("a .cls or .json with its label", "none".to_owned())),
            Label::Number(_) => {
                Err(("its directory as class, as its shards began", "a number".to_owned()))
            }
        };
        let path = || shards[shard as usize].join(&member.name);
        let label =
            label.map_err(|(expected, found)| DataError::format(&path(), expected, found))?;
        Ok((label, shard, member))
    });
    let mut labelled: Vec<_> = labelled.collect::<Result<_, DataError>>()?;
    labelled.sort_by(|(a_label, a_shard, a), (b_label, b_shard, b)| {
        (a_label, &a.name, a_shard, a.offset).cmp(&(b_label, &b.name, b_shard, b.offset))
    });
    Ok(Tar {
        labels: labelled.iter().map(|&(label, ..)| label).collect(),
        members: labelled.into_iter().map(|(_, shard, member)| (shard, member)).collect(),
        shards: Arc::new(shards),
    })
}

/// Names of numbered classes: `classes.txt` beside the shards, or their numbers.
fn class_names(shard: &Path, labels: &[u32]) -> Result<Vec<String>, DataError> {
    let path = shard.with_file_name("classes.txt");
    match path.exists() {
        true => {
            let text = std::fs::read_to_string(&path).map_err(DataError::read(&path))?;
            Ok(text.lines().map(str::to_owned).collect())
        }
        false => parts::numbered(labels.iter().max().map_or(0, |&label| u64::from(label)), shard),
    }
}

/// The images of a shard, in its order.
fn scan(path: &Path) -> Result<Vec<Member>, DataError> {
    let torn = |error: std::io::Error| DataError::format(path, "a tar file", error);
    let mut file = File::open(path).map_err(DataError::read(path))?;
    let mut start = [0; 2];
    if file.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b] {
        let expected = "a tar file that is not compressed, for images are read in place";
        return Err(DataError::format(path, expected, "a gzip file"));
    }
    file.rewind().map_err(DataError::read(path))?;
    let (mut images, mut labels) = (vec![], HashMap::new());
    for entry in Archive::new(file).entries_with_seek().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        let (key, kind) = key_and_kind(&name);
        if is_image(Path::new(&name)) {
            images.push((key, name, entry.raw_file_position(), entry.size()));
        } else if let "cls" | "json" = &kind[..] {
            let mut text = String::new();
            let read = entry.by_ref().take(MOST_LABEL_BYTES).read_to_string(&mut text);
            read.map_err(|error| DataError::format(&path.join(&name), "text", error))?;
            if let Some(label) = label_in(&kind, &text) {
                let label = label.map_err(|found| {
                    DataError::format(&path.join(&name), "a class number", found)
                })?;
                labels.insert(key, label);
            }
        }
    }
    let member = |(key, name, offset, size): (String, String, u64, u64)| {
        let directory = || {
            let directory = Path::new(&name).parent().and_then(Path::file_name);
            Label::Directory(directory.unwrap_or_default().to_string_lossy().into_owned())
        };
        let label = labels.get(&key).map_or_else(directory, |&label| Label::Number(label));
        Member { name, offset, size, label }
    };
    Ok(images.into_iter().map(member).collect())
}

/// More than any description of an image needs.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// A member's name up to the first dot of its last part, and what follows, in lower case.
fn key_and_kind(name: &str) -> (String, String) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].split_once('.') {
        Some((stem, kind)) => (format!("{}{stem}", &name[..last]), kind.to_ascii_lowercase()),
        None => (name.to_owned(), String::new()),
    }
}

/// The label in a `.cls` or `.json`; a JSON document may have none.
fn label_in(kind: &str, text: &str) -> Option<Result<u32, String>> {
    if kind == "cls" {
        return Some(text.trim().parse().map_err(|_| format!("`{}`", text.trim())));
    }
    let json: serde_json::Value = match serde_json::from_str(text) {
        Ok(json) => json,
        Err(error) => return Some(Err(error.to_string())),
    };
    let label = json.get("label").or_else(|| json.get("cls"))?;
    let number = label.as_u64().and_then(|label| u32::try_from(label).ok());
    Some(number.ok_or_else(|| label.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn shard(path: &Path, members: &[(&str, &[u8])]) {
        let mut builder = ::tar::Builder::new(File::create(path).unwrap());
        for (name, bytes) in members {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.finish().unwrap();
    }

    fn load_dir(dir: &Path) -> Result<DataSet, DataError> {
        load(dir, "tar".to_owned(), &LoadOptions { cache: None, ..LoadOptions::default() })
    }

    fn contents(source: &Arc<dyn Source>) -> Vec<(String, u32)> {
        let text = |index| match source.sample(index).unwrap() {
            Sample::Encoded(encoded) => String::from_utf8(encoded.bytes).unwrap(),
            Sample::Pixels(_) => panic!("a file"),
        };
        (0..source.len()).map(|index| (text(index), source.label(index))).collect()
    }

    fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
        expected.iter().map(|&(text, label)| (text.to_owned(), label)).collect()
    }

    #[test]
    fn files_of_one_name_belong_together_whatever_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}/c.jpg", "d".repeat(120));
        shard(
            &dir.path().join("a-train-0.tar"),
            &[
                ("x/b.cls", b"1\n"),
                ("x/b.JPG", b"b"),
                ("./a.seg.png", b"a"),
                ("a.cls", b"0"),
                ("a.txt", b"no image"),
            ],
        );
        shard(
            &dir.path().join("a-train-1.tar"),
            &[(&long, b"c"), (&long.replace("jpg", "json"), br#"{"label": 0, "width": 3}"#)],
        );
        shard(&dir.path().join("a-val.tar"), &[("v.webp", b"v"), ("v.json", br#"{"cls": 2}"#)]);
        let said = load_dir(dir.path()).err().unwrap().to_string();
        assert!(
            said.ends_with("label 2 of image 0 is out of range, there are 2 classes"),
            "{said}"
        );
        fs::write(dir.path().join("classes.txt"), "cat\ndog\nfox\n").unwrap();
        let data = load_dir(dir.path()).unwrap();
        assert_eq!(contents(&data.train), pairs(&[("a", 0), ("c", 0), ("b", 1)]));
        assert_eq!(contents(&data.val), pairs(&[("v", 2)]));
        assert_eq!(data.class_names, ["cat", "dog", "fox"]);
    }

    #[test]
    fn directories_are_classes_where_there_are_no_labels() {
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<_> = (0..12)
            .map(|i| (format!("t/{}/{i:02}.png", ["b", "a"][i % 2]), [b'0' + i as u8]))
            .collect();
        let members: Vec<(&str, &[u8])> =
            members.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
        shard(&dir.path().join("0.tar"), &members);
        let data = load_dir(dir.path()).unwrap();
        assert_eq!((data.train.len(), data.val.len()), (11, 1));
        assert_eq!(data.class_names, ["a", "b"]);
        assert_eq!(data.train.label(0), 0);
        shard(&dir.path().join("val.tar"), &[("c/0.png", b"0")]);
        let said = load_dir(dir.path()).err().unwrap().to_string();
        assert!(
            said.ends_with("val.tar/c/0.png: expected a class of the training images, found `c`"),
            "{said}"
        );
    }

    #[test]
    fn shards_that_are_none_are_named() {
        let said = |members: &[(&str, &[u8])]| {
            let dir = tempfile::tempdir().unwrap();
            shard(&dir.path().join("0.tar"), members);
            load_dir(dir.path()).err().unwrap().to_string()
        };
        assert!(said(&[]).ends_with("holds no images"), "{}", said(&[]));
        let error = said(&[("a.jpg", b""), ("a.cls", b"cat")]);
        assert!(error.ends_with("0.tar/a.cls: expected a class number, found `cat`"), "{error}");
        let error = said(&[("a.jpg", b""), ("a.json", b"{")]);
        assert!(error.contains("0.tar/a.json: expected a class number"), "{error}");
        let error = said(&[("a.jpg", b""), ("a.json", br#"{"label": -1}"#)]);
        assert!(error.ends_with("found -1"), "{error}");
        let error = said(&[("a.jpg", b""), ("a.cls", b"4294967295")]);
        assert!(error.ends_with("expected labels below 1048576, found 4294967295"), "{error}");
        let error = said(&[("a.jpg", b""), ("b/a.jpg", b"")]);
        assert!(error.contains("a .cls or .json with its label"), "{error}");
        let error = said(&[("a.jpg", b""), ("a.cls", b"0"), ("b/a.jpg", b"")]);
        assert!(error.contains("a .cls or .json with its label"), "{error}");

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.tar");
        for (bytes, part) in
            [(&b"\x1f\x8b and more"[..], "a gzip file"), (&[7; 600], "expected a tar file")]
        {
            fs::write(&path, bytes).unwrap();
            let error = load_dir(dir.path()).err().unwrap().to_string();
            assert!(error.contains("0.tar") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_torn_shard_has_bad_images() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.tar");
        let members: Vec<_> =
            (0..13).map(|i| (format!("a/{i:02}.png"), vec![i as u8; 2000])).collect();
        let members: Vec<(&str, &[u8])> =
            members.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
        shard(&path, &members);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..12 * 2560 + 1000]).unwrap();
        let data = load_dir(dir.path()).unwrap();
        let all = [&data.train, &data.val];
        assert_eq!(all.map(|source| source.len()).iter().sum::<usize>(), 13);
        let errors: Vec<_> = all
            .iter()
            .flat_map(|source| (0..source.len()).filter_map(|i| source.sample(i).err()))
            .collect();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("0.tar/a/12.png"), "{}", errors[0]);
    }
}
