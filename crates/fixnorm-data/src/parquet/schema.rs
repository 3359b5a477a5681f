//! Which columns of a Parquet file hold images and labels, and what their classes are called.
//! Not here: reading them (`parquet.rs`).

use std::fs::File;
use std::path::Path;

use ::parquet::basic::Type as Physical;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde_json::Value;

use super::caught;
use crate::DataError;

/// The columns in use, by their number among the leaves of the schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) bytes: usize,
    pub(super) path: Option<usize>,
    pub(super) label: usize,
}

pub(super) fn torn(path: &Path) -> impl Fn(ParquetError) -> DataError + '_ {
    |error| DataError::format(path, "a Parquet file", error)
}

pub(super) fn open(path: &Path) -> Result<(ParquetMetaData, Columns), DataError> {
    let file = File::open(path).map_err(DataError::read(path))?;
    let parse = || ParquetMetaDataReader::new().parse_and_finish(&file);
    let metadata = caught(parse, |error| error).map_err(torn(path))?;
    let columns = columns(path, &metadata)?;
    Ok((metadata, columns))
}

fn columns(path: &Path, metadata: &ParquetMetaData) -> Result<Columns, DataError> {
    let schema = metadata.file_metadata().schema_descr();
    let leaves: Vec<String> =
        (0..schema.num_columns()).map(|leaf| schema.column(leaf).path().string()).collect();
    let missing =
        |what: &str| DataError::format(path, what, format!("the columns {}", leaves.join(", ")));
    let flat = |leaf: usize| schema.column(leaf).max_rep_level() == 0;
    let of_bytes =
        |leaf: usize| flat(leaf) && schema.column(leaf).physical_type() == Physical::BYTE_ARRAY;
    let named = |name: &str| leaves.iter().position(|leaf| leaf == name);
    let any = || (0..leaves.len()).find(|&leaf| leaves[leaf].ends_with(".bytes") && of_bytes(leaf));
    let bytes = named("image.bytes").filter(|&leaf| of_bytes(leaf)).or_else(any);
    let bytes = bytes.or_else(|| named("image").filter(|&leaf| of_bytes(leaf)));
    let bytes = bytes.ok_or_else(|| missing("a column of images, `image` with `bytes`"))?;
    let beside = leaves[bytes].strip_suffix(".bytes").map(|group| format!("{group}.path"));
    let integer = |leaf: usize| {
        flat(leaf)
            && matches!(schema.column(leaf).physical_type(), Physical::INT32 | Physical::INT64)
    };
    let integers: Vec<usize> = (0..leaves.len()).filter(|&leaf| integer(leaf)).collect();
    let labelled =
        class_label(metadata).and_then(|(name, _)| named(&name)).or_else(|| named("label"));
    let label = labelled.filter(|&leaf| integer(leaf)).or(match integers[..] {
        [only] => Some(only),
        _ => None,
    });
    Ok(Columns {
        bytes,
        path: beside.and_then(|path| named(&path)).filter(|&leaf| of_bytes(leaf)),
        label: label.ok_or_else(|| missing("a column of class numbers, `label`"))?,
    })
}

/// Name and class names of the label column, as the `huggingface` entry of the metadata has them.
pub(super) fn class_label(metadata: &ParquetMetaData) -> Option<(String, Vec<String>)> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_ref()?;
    let json: Value = serde_json::from_str(text).ok()?;
    let features = json.pointer("/info/features")?.as_object()?;
    let (name, feature) = features.iter().find(|(_, feature)| feature["_type"] == "ClassLabel")?;
    let names = feature["names"].as_array()?.iter();
    let names = names.map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    Some((name.clone(), names))
}
