//! The values of a label column: integers, text, or true and false.
//! Not here: which column it is (`parquet/schema.rs`), what the classes of several files are (`parquet/classes.rs`).

use std::path::Path;

use ::parquet::column::reader::ColumnReader;
use ::parquet::data_type::ByteArray;
use ::parquet::errors::Result as ParquetResult;

use super::all_values;
use super::classes::Names;
use crate::DataError;

/// A value as text.
pub(super) fn text_of(value: Option<ByteArray>) -> Option<String> {
    value.map(|value| crate::names::text_of_bytes(value.data()))
}

/// The values of a label column.
#[derive(Default)]
pub(super) struct LabelColumn {
    numbers: Vec<Option<i64>>,
    texts: Vec<Option<String>>,
    truths: Vec<Option<bool>>,
}

impl LabelColumn {
    /// Adds those of a row group.
    pub(super) fn add(
        &mut self,
        reader: ColumnReader,
        rows: usize,
        defined: i16,
    ) -> ParquetResult<()> {
        match reader {
            ColumnReader::Int32ColumnReader(mut reader) => {
                let values = all_values(&mut reader, rows, defined)?;
                self.numbers.extend(values.into_iter().map(|value| value.map(i64::from)));
            }
            ColumnReader::Int64ColumnReader(mut reader) => {
                self.numbers.extend(all_values(&mut reader, rows, defined)?);
            }
            ColumnReader::BoolColumnReader(mut reader) => {
                self.truths.extend(all_values(&mut reader, rows, defined)?);
            }
            ColumnReader::ByteArrayColumnReader(mut reader) => {
                let values = all_values(&mut reader, rows, defined)?;
                self.texts.extend(values.into_iter().map(text_of));
            }
            _ => {}
        }
        Ok(())
    }

    /// Numbers, and what they are called.
    pub(super) fn finish(
        self,
        path: &Path,
        class_names: Option<Vec<String>>,
    ) -> Result<(Vec<i64>, Names), DataError> {
        let Self { numbers, texts, truths } = self;
        if !texts.is_empty() {
            let texts = present(path, texts)?;
            let mut names = texts.clone();
            names.sort_unstable();
            names.dedup();
            let number = |text: &String| names.binary_search(text).map_or(-1, |place| place as i64);
            return Ok((texts.iter().map(number).collect(), Names::Text(names)));
        }
        if !truths.is_empty() {
            let numbers = present(path, truths)?.into_iter().map(i64::from).collect();
            return Ok((numbers, Names::Listed(["false", "true"].map(str::to_owned).to_vec())));
        }
        Ok((present(path, numbers)?, class_names.map_or(Names::None, Names::Listed)))
    }
}

/// Labels of which none may be null.
fn present<T>(path: &Path, labels: Vec<Option<T>>) -> Result<Vec<T>, DataError> {
    let label = |(row, label): (usize, Option<T>)| {
        let path = || path.join(format!("row {row}"));
        label.ok_or_else(|| DataError::format(&path(), "a class number or name", "null"))
    };
    labels.into_iter().enumerate().map(label).collect()
}
