//! Which columns of a Parquet file hold images and labels, and what their classes are called.
//! Not here: reading them (`parquet.rs`).

use std::path::Path;

use ::parquet::basic::{Compression, ConvertedType, LogicalType, Type as Physical};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ::parquet::schema::types::ColumnDescPtr;
use serde_json::{Map, Value};

use super::caught;
use crate::shard_file::ShardFile;
use crate::{Columns, DataError};

/// The columns in use, by their number among the leaves of the schema.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaves {
    pub(super) bytes: usize,
    pub(super) path: Option<usize>,
    pub(super) label: usize,
    /// Name of the label column.
    pub(super) label_name: String,
    /// Names of its numbers, from the metadata.
    pub(super) class_names: Option<Vec<String>>,
}

pub(super) fn torn(path: &Path) -> impl Fn(ParquetError) -> DataError + '_ {
    |error| DataError::torn(path, "a Parquet file", error)
}

pub(super) fn open(
    path: &ShardFile,
    wanted: &Columns,
) -> Result<(ParquetMetaData, Leaves), DataError> {
    let file = path.chunks().map_err(DataError::read(path))?;
    let parse = || ParquetMetaDataReader::new().parse_and_finish(&file);
    let metadata = caught(parse, |error| error).map_err(torn(path))?;
    let leaves = Schema::of(path, &metadata).leaves(wanted)?;
    for leaf in [leaves.bytes, leaves.label] {
        check_codec(path, &metadata, leaf)?;
    }
    Ok((metadata, leaves))
}

/// Refuses what no decompressor here reads, before the reader says so in its own words.
fn check_codec(path: &Path, metadata: &ParquetMetaData, leaf: usize) -> Result<(), DataError> {
    let unknown = metadata.row_groups().iter().map(|group| group.column(leaf).compression());
    match unknown.into_iter().find(|codec| matches!(codec, Compression::LZO)) {
        Some(codec) => {
            let expected =
                "columns compressed with Zstandard, Snappy, gzip, Brotli or LZ4, or not at all";
            Err(DataError::format(path, expected, codec))
        }
        None => Ok(()),
    }
}

/// The columns of a file by what they may be.
struct Schema<'a> {
    path: &'a Path,
    /// Full name and description of every leaf.
    leaves: Vec<(String, ColumnDescPtr)>,
    /// The description that `datasets` writes of each column.
    features: Map<String, Value>,
}

/// Names of label columns, of which the first one that is there is taken.
const LABELS: [&str; 8] =
    ["label", "labels", "cls", "class", "target", "category", "label_id", "class_id"];

/// The meaning of integers that are not labels.
const NO_LABELS: [&str; 10] =
    ["id", "idx", "index", "width", "height", "size", "length", "timestamp", "year", "level_0__"];

impl<'a> Schema<'a> {
    fn of(path: &'a Path, metadata: &ParquetMetaData) -> Self {
        let schema = metadata.file_metadata().schema_descr();
        let leaves = (0..schema.num_columns()).map(|leaf| schema.column(leaf));
        let leaves = leaves.map(|leaf| (leaf.path().string(), leaf)).collect();
        Self { path, leaves, features: features(metadata).unwrap_or_default() }
    }

    fn leaves(&self, wanted: &Columns) -> Result<Leaves, DataError> {
        let bytes = match &wanted.image {
            Some(name) => self.wanted("image", name, |leaf| self.is_bytes(leaf))?,
            None => self.image()?,
        };
        let (label, label_name) = match &wanted.label {
            Some(name) => (self.wanted("label", name, |leaf| self.is_label(leaf))?, name.clone()),
            None => self.label(bytes)?,
        };
        let beside =
            self.leaves[bytes].0.strip_suffix(".bytes").map(|group| format!("{group}.path"));
        Ok(Leaves {
            bytes,
            path: beside.and_then(|path| self.named(&path)).filter(|&leaf| self.is_bytes(leaf)),
            label,
            class_names: self.class_names(&label_name),
            label_name,
        })
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.leaves.iter().position(|(leaf, _)| leaf == name)
    }

    fn name(&self, leaf: usize) -> &str {
        let name = &self.leaves[leaf].0;
        name.strip_suffix(".bytes").unwrap_or(name)
    }

    fn all(&self, is: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.leaves.len()).filter(|&leaf| is(leaf)).collect()
    }

    fn is_bytes(&self, leaf: usize) -> bool {
        let column = &self.leaves[leaf].1;
        column.max_rep_level() == 0 && column.physical_type() == Physical::BYTE_ARRAY
    }

    fn is_text(&self, leaf: usize) -> bool {
        let column = &self.leaves[leaf].1;
        let text = matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM)
            || matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum));
        self.is_bytes(leaf) && text
    }

    fn is_integer(&self, leaf: usize) -> bool {
        let column = &self.leaves[leaf].1;
        column.max_rep_level() == 0
            && matches!(column.physical_type(), Physical::INT32 | Physical::INT64)
    }

    fn is_label(&self, leaf: usize) -> bool {
        let column = &self.leaves[leaf].1;
        let truth = column.max_rep_level() == 0 && column.physical_type() == Physical::BOOLEAN;
        truth || self.is_integer(leaf) || self.is_text(leaf)
    }

    /// The column that the user named.
    fn wanted(
        &self,
        what: &str,
        name: &str,
        is: impl Fn(usize) -> bool,
    ) -> Result<usize, DataError> {
        let found = [name.to_owned(), format!("{name}.bytes")];
        let found = found.iter().filter_map(|name| self.named(name)).find(|&leaf| is(leaf));
        found.ok_or_else(|| {
            let expected = match what {
                "image" => format!("a column `{name}` of bytes, one value a row"),
                _ => format!("a column `{name}` of integers or text, one value a row"),
            };
            self.missing(expected)
        })
    }

    /// `image`, or the only column that may be one.
    fn image(&self) -> Result<usize, DataError> {
        let of_images = self.features.iter().filter(|(_, feature)| feature["_type"] == "Image");
        let noted: Vec<&String> = of_images.map(|(name, _)| name).collect();
        let usual = ["image.bytes", "image"].into_iter();
        if let Some(leaf) =
            usual.filter_map(|name| self.named(name)).find(|&leaf| self.is_bytes(leaf))
        {
            return Ok(leaf);
        }
        let is_noted = |leaf: usize| noted.iter().any(|name| *name == self.name(leaf));
        let in_group = |leaf: usize| self.leaves[leaf].0.ends_with(".bytes");
        let candidates = self.all(|leaf| {
            self.is_bytes(leaf)
                && !self.is_text(leaf)
                && (noted.is_empty() || is_noted(leaf) || in_group(leaf))
        });
        self.only("the column of images", "image", &candidates)?
            .ok_or_else(|| self.missing("a column of images, `image` with `bytes`"))
    }

    /// The column with names in the metadata, or the first of the usual names, or the only one that may be one.
    fn label(&self, image: usize) -> Result<(usize, String), DataError> {
        let listed = self.all(|leaf| {
            let name = &self.leaves[leaf].0;
            self.is_integer(leaf)
                && self.features.get(name).is_some_and(|f| f["_type"] == "ClassLabel")
        });
        let usual = |among: &[usize]| {
            let named = LABELS.into_iter().filter_map(|name| self.named(name));
            named.into_iter().find(|leaf| among.contains(leaf))
        };
        let labels = self.all(|leaf| self.is_label(leaf));
        let found = match usual(&listed) {
            Some(leaf) => Some(leaf),
            None if !listed.is_empty() => self.only("the label column", "label", &listed)?,
            None => match usual(&labels) {
                Some(leaf) => Some(self.unless_text_beside_integers(leaf, &labels)?),
                None => self.only_label(image, &labels)?,
            },
        };
        let leaf =
            found.ok_or_else(|| self.missing("a column of class numbers or names, `label`"))?;
        Ok((leaf, self.leaves[leaf].0.clone()))
    }

    /// A column that is called as a label. Where it is text and there are integers too, either may be the label.
    fn unless_text_beside_integers(
        &self,
        leaf: usize,
        labels: &[usize],
    ) -> Result<usize, DataError> {
        let integers = labels.iter().copied().filter(|&other| self.is_integer(other));
        let candidates: Vec<usize> = std::iter::once(leaf).chain(integers).collect();
        if self.is_text(leaf) && candidates.len() > 1 {
            return self.question("the label column", "label", &candidates);
        }
        Ok(leaf)
    }

    /// The only column that may be the label: of integers that are not called otherwise; text beside it, or
    /// alone, is a question.
    fn only_label(&self, image: usize, labels: &[usize]) -> Result<Option<usize>, DataError> {
        let group = self.leaves[image].0.strip_suffix("bytes").unwrap_or("\0");
        let may_be = |leaf: usize| {
            let name = self.leaves[leaf].0.to_ascii_lowercase();
            let last = name.rsplit(['_', '.']).next().unwrap_or_default();
            !NO_LABELS.contains(&last) && !name.ends_with("level_0__") && !name.starts_with(group)
        };
        let candidates: Vec<usize> = labels.iter().copied().filter(|&leaf| may_be(leaf)).collect();
        match candidates[..] {
            [only] if !self.is_text(only) => Ok(Some(only)),
            // A text alone may as well be a caption.
            [text] => self.question("the label column", "label", &[text]).map(Some),
            [] => {
                let rest: Vec<usize> = labels
                    .iter()
                    .copied()
                    .filter(|&leaf| !self.leaves[leaf].0.starts_with(group))
                    .collect();
                if rest.is_empty() {
                    Ok(None)
                } else {
                    self.question("the label column", "label", &rest).map(Some)
                }
            }
            _ => self.question("the label column", "label", &candidates).map(Some),
        }
    }

    fn only(
        &self,
        what: &str,
        key: &str,
        candidates: &[usize],
    ) -> Result<Option<usize>, DataError> {
        match candidates {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            several => self.question(what, key, several).map(Some),
        }
    }

    fn question(&self, what: &str, key: &str, candidates: &[usize]) -> Result<usize, DataError> {
        let candidates: Vec<String> =
            candidates.iter().map(|&leaf| self.name(leaf).to_owned()).collect();
        Err(DataError::Ambiguous {
            path: self.path.to_owned(),
            what: what.to_owned(),
            answer: format!("parquet:GLOB?{key}={}", candidates[0]),
            candidates,
        })
    }

    fn missing(&self, expected: impl ToString) -> DataError {
        let shown = |(name, column): &(String, ColumnDescPtr)| {
            let several = if column.max_rep_level() > 0 { ", several a row" } else { "" };
            format!("{name} ({}{several})", column.physical_type())
        };
        let names: Vec<String> = self.leaves.iter().map(shown).collect();
        DataError::format(self.path, expected, format!("the columns {}", names.join(", ")))
    }

    /// Names of a column's numbers.
    fn class_names(&self, column: &str) -> Option<Vec<String>> {
        let feature = self.features.get(column).filter(|f| f["_type"] == "ClassLabel")?;
        let names = feature["names"].as_array()?.iter();
        names.map(|name| name.as_str().map(str::to_owned)).collect()
    }
}

/// The `huggingface` entry of the metadata.
fn features(metadata: &ParquetMetaData) -> Option<Map<String, Value>> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_ref()?;
    let json: Value = serde_json::from_str(text).ok()?;
    Some(json.pointer("/info/features")?.as_object()?.clone())
}
