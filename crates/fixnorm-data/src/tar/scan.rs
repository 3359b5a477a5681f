//! The members of a tar file that are images, with their labels.
//! Not here: what of it counts in a set of shards (`tar/samples.rs`).

use std::collections::HashMap;
use std::io::{Read, SeekFrom};
use std::path::Path;

use ::tar::{Archive, Entry, EntryType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::left_out::{LeftOut, Reason};
use crate::names::{is_junk, text_of_bytes};
use crate::shard_file::{ReadSeek, ShardFile};
use crate::walk::{ending, is_image, is_other_image};
use crate::{Columns, DataError};

/// An image in a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) label: Option<Label>,
    /// Whether the label is of this image alone: of a file that agrees up to the last dot, which is not the
    /// first.
    pub(super) own_label: bool,
}

/// A label file's content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Label {
    Number(u32),
    Text(String),
}

/// The index's entry for a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) members: Vec<Member>,
    pub(super) left_out: LeftOut,
    /// Whether it ends with the mark of its end.
    pub(super) whole: bool,
    /// Samples with two labels, of which the second differs.
    pub(super) disagreeing: usize,
}

/// More than any description of an image needs.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// A label, or what was found instead.
type Found = Result<Label, String>;

/// The labels of a sample by where they stand, the first one counts.
#[derive(Default)]
struct Labels {
    /// In a file of its own, and that file's name.
    file: Option<(Found, String)>,
    /// In a JSON document.
    json: Option<(Found, String)>,
}

/// The images of a shard, in its order.
pub(super) fn scan(path: &ShardFile, columns: &Columns) -> Result<Contents, DataError> {
    let torn = |error: std::io::Error| DataError::torn(path, "a tar file", error);
    let mut file = path.open()?;
    check_plain(path, &mut file)?;
    let mut scanned = Scan {
        path,
        columns,
        contents: Contents::default(),
        places: HashMap::new(),
        labels: HashMap::new(),
    };
    let mut end = 0;
    for entry in Archive::new(&mut file).entries_with_seek().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        end = entry.raw_file_position().saturating_add(entry.size()).next_multiple_of(512);
        scanned.add(&mut entry)?;
    }
    let mut block = [1; 512];
    let at_end = file.seek(SeekFrom::Start(end)).and_then(|_| file.read_exact(&mut block));
    scanned.contents.whole = at_end.is_ok() && block == [0; 512];
    scanned.finish()
}

/// Refuses compressed files whose names do not say so.
fn check_plain(path: &Path, file: &mut impl ReadSeek) -> Result<(), DataError> {
    const KNOWN: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "Zstandard"),
        (b"\xfd7zXZ", "xz"),
        (b"BZh", "bzip2"),
    ];
    let mut start = vec![];
    file.by_ref().take(8).read_to_end(&mut start).map_err(DataError::read(path))?;
    if let Some((_, name)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        let expected = "a plain tar file, .tar.gz or .tar.zst";
        return Err(DataError::format(path, expected, format!("a {name} file")));
    }
    file.rewind().map_err(DataError::read(path))
}

/// The state of reading a shard.
struct Scan<'a> {
    path: &'a Path,
    columns: &'a Columns,
    contents: Contents,
    /// The place of each image, by its name.
    places: HashMap<String, usize>,
    /// The labels of each sample, by its name without the ending.
    labels: HashMap<String, Labels>,
}

impl Scan<'_> {
    fn add<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), DataError> {
        let name = text_of_bytes(&entry.path_bytes());
        let name = name.trim_start_matches("./").trim_start_matches('/').to_owned();
        let image = is_image(Path::new(&name));
        let kind = entry.header().entry_type();
        if name.split('/').any(|part| is_junk(part.as_ref())) {
            if image && kind.is_file() {
                self.contents.left_out.add(Reason::Hidden, || name);
            }
            return Ok(());
        }
        match kind {
            EntryType::Regular | EntryType::Continuous if image => {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                self.image(name, offset, size);
            }
            EntryType::Regular | EntryType::Continuous => return self.no_image(name, entry),
            EntryType::Link if image => {
                let link =
                    entry.link_name_bytes().map(|link| text_of_bytes(&link)).unwrap_or_default();
                let link = link.trim_start_matches("./").trim_start_matches('/');
                match self.places.get(link).map(|&place| &self.contents.members[place]) {
                    Some(&Member { offset, size, .. }) => self.image(name, offset, size),
                    None => self.contents.left_out.add(Reason::Link, || name),
                }
            }
            EntryType::Symlink if image => self.contents.left_out.add(Reason::Link, || name),
            EntryType::Directory => {}
            _ if image => self.contents.left_out.add(Reason::Special, || name),
            _ => {}
        }
        Ok(())
    }

    /// Adds an image; of two with one name the later counts, as it would where they are unpacked.
    fn image(&mut self, name: String, offset: u64, size: u64) {
        let member = Member { name: name.clone(), offset, size, label: None, own_label: false };
        if let Some(&place) = self.places.get(&name) {
            self.contents.members[place] = member;
            self.contents.left_out.add(Reason::Replaced, || name);
        } else {
            self.places.insert(name, self.contents.members.len());
            self.contents.members.push(member);
        }
    }

    /// Takes what else may be a label.
    fn no_image<R: Read>(
        &mut self,
        name: String,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), DataError> {
        let ending = ending(name.as_ref());
        let wanted = self.columns.label.as_deref();
        let in_json = ending == "json" && wanted != Some("cls");
        let in_file = !in_json && ending == wanted.unwrap_or("cls");
        if !in_file && !in_json {
            if is_other_image(&ending) {
                self.contents.left_out.add(Reason::Ending(ending), || name);
            }
            return Ok(());
        }
        let mut text = String::new();
        let read = entry.by_ref().take(MOST_LABEL_BYTES).read_to_string(&mut text);
        read.map_err(|error| DataError::format(&self.path.join(&name), "text", error))?;
        let stem = name[..name.len() - ending.len() - 1].to_owned();
        let labels = self.labels.entry(stem).or_default();
        if in_json {
            labels.json =
                in_document(&text, wanted.filter(|&key| key != "json")).map(|label| (label, name));
        } else {
            labels.file = Some((in_text(&text), name));
        }
        Ok(())
    }

    /// The images with their labels.
    fn finish(self) -> Result<Contents, DataError> {
        let Self { path, mut contents, labels, .. } = self;
        for member in &mut contents.members {
            let (key, stem) = (key_and_kind(&member.name).0, stem(&member.name));
            let own = labels.get(stem).filter(|_| stem != key);
            member.own_label = own.is_some();
            let Some(Labels { file, json }) = own.or_else(|| labels.get(key)) else { continue };
            if let (Some((Ok(first), _)), Some((Ok(second), _))) = (file, json)
                && first != second
                && matches!((first, second), (Label::Number(_), Label::Number(_)))
            {
                contents.disagreeing += 1;
            }
            let Some((label, name)) = file.as_ref().or(json.as_ref()) else { continue };
            let label = label.clone().map_err(|found| {
                DataError::format(&path.join(name), "a class number or name", found)
            })?;
            member.label = Some(label);
        }
        Ok(contents)
    }
}

/// A member's name up to the first dot of its last part, and what follows.
pub(super) fn key_and_kind(name: &str) -> (&str, &str) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].find('.') {
        Some(dot) => (&name[..last + dot], &name[last + dot + 1..]),
        None => (name, ""),
    }
}

/// A member's name up to its last dot.
pub(super) fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The label in a file of its own.
fn in_text(text: &str) -> Found {
    let text = text.trim_start_matches('\u{feff}').trim();
    if let Ok(number) = text.parse() {
        return Ok(Label::Number(number));
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if let Ok(number) = text.parse::<f64>()
        && numeric
    {
        return whole(number).ok_or_else(|| format!("`{text}`"));
    }
    match text {
        "" => Err("an empty file".to_owned()),
        text if text.lines().count() > 1 => Err("several lines".to_owned()),
        text => Ok(Label::Text(text.to_owned())),
    }
}

fn whole(number: f64) -> Option<Label> {
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    fits.then_some(Label::Number(number as u32))
}

/// The label in a JSON document, which may have none; `key` may lead into objects by dots.
fn in_document(text: &str, key: Option<&str>) -> Option<Found> {
    let json: Value = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(json) => json,
        Err(error) => return Some(Err(error.to_string())),
    };
    let label = match key {
        Some(key) => json.get(key).or_else(|| json.pointer(&format!("/{}", key.replace('.', "/")))),
        None => json.get("label").or_else(|| json.get("cls")),
    };
    let label = label.filter(|label| !label.is_null())?;
    Some(match label {
        Value::String(text) => in_text(text),
        Value::Number(number) => number.as_f64().and_then(whole).ok_or_else(|| number.to_string()),
        other => Err(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_last_part() {
        assert_eq!(key_and_kind("a.b/c.seg.png"), ("a.b/c", "seg.png"));
        assert_eq!((key_and_kind("a/b"), stem("a/b.c.jpg")), (("a/b", ""), "a/b.c"));
    }

    #[test]
    fn labels_are_numbers_or_names() {
        assert_eq!(in_text("\u{feff} 7\r\n"), Ok(Label::Number(7)));
        assert_eq!(in_text("7.0"), Ok(Label::Number(7)));
        for name in ["tabby cat", "nan", "-x", "3rd"] {
            assert_eq!(in_text(&format!("{name}\n")), Ok(Label::Text(name.to_owned())));
        }
        for wrong in ["", "-1", "1.5", "4294967296", "a\nb"] {
            assert!(in_text(wrong).is_err(), "{wrong}");
        }
        let json = r#"{"label": 2, "fine": {"name": "cat"}, "none": null, "list": [1]}"#;
        assert_eq!(in_document(json, None), Some(Ok(Label::Number(2))));
        assert_eq!(in_document(json, Some("fine.name")), Some(Ok(Label::Text("cat".to_owned()))));
        assert_eq!(in_document(json, Some("none")), None);
        assert!(in_document(json, Some("list")).unwrap().is_err());
        assert!(in_document("{", None).unwrap().is_err());
    }
}
