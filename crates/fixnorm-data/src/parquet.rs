//! Parquet files as Hugging Face's `datasets` writes them: an image's bytes in one column, its label in
//! another.
//!
//! Images are in the order of label and path, or of files and rows where there are no paths.
//!
//! Images are drawn at random from all row groups, and decoding a row group for each would read it once a
//! row. So the index keeps where each *page* of the image column begins, which takes reading the pages'
//! headers once, and one image costs reading and decompressing its page, usually of 1 MiB, and no memory
//! that stays. But Arrow's writer puts all images of a row group of up to 1,024 rows into one dictionary
//! page. Where an image would cost more than 2 MiB, the images are copied once, row group by row group, into a
//! file of plain bytes in the cache directory; where that cannot be written, it costs what it costs.
//! Not here: which columns (`parquet/schema.rs`), labels to classes (`parquet/classes.rs`), the index itself
//! (`index.rs`), the copy (`spill.rs`).

use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ::parquet::column::page::PageReader;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::page_index::offset_index::PageLocation;
use ::parquet::file::reader::{ChunkReader, FileReader, Length};
use ::parquet::file::serialized_reader::{SerializedFileReader, SerializedPageReader};
use bytes::Bytes;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::index::LoadOptions;
use crate::parts::{Part, Parts, Purpose};
use crate::shard_file::{Chunks, ShardFile};
use crate::shards::{self, Scanned};
use crate::spill::{Put, Spill};
use crate::{Columns, DataError, Encoded, Sample, Source, Split};

mod classes;
mod labels;
mod schema;

use classes::{Classes, Names};
use labels::{LabelColumn, text_of};
use schema::{Leaves, open, torn};

/// A row group: its rows, and of each page of the image column offset and first row.
type Group = (u32, Vec<(u64, u32)>);

/// The index's entry for a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contents {
    labels: Vec<i64>,
    names: Names,
    /// Name of the label column.
    label_column: String,
    /// One a row, or none at all.
    paths: Vec<String>,
    groups: Vec<Group>,
}

/// A file that images are read from.
struct Shard {
    path: ShardFile,
    /// Where its pages are too large.
    spill: Option<Spill>,
    metadata: ParquetMetaData,
    column: usize,
    groups: Vec<Group>,
}

/// Images in Parquet files, by their places.
struct Table {
    shards: Vec<Shard>,
    /// Shard, row and label, in the order of label and path.
    rows: Vec<(u32, u32, u32)>,
}

impl Source for Table {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let (shard, row, _) = self.rows[index];
        let shard = &self.shards[shard as usize];
        let name = shard.path.join(format!("row {row}"));
        if let Some(spill) = &shard.spill {
            return match spill.read(row as usize) {
                Ok(bytes) => Ok(Sample::Encoded(Encoded { bytes, name })),
                Err(source) => Err(DataError::read(&name)(source)),
            };
        }
        match caught(|| shard.image(row), |error| error) {
            Ok(Some(bytes)) => Ok(Sample::Encoded(Encoded { bytes, name })),
            Ok(None) => Err(DataError::NotAnImage { path: name, message: "it is null".to_owned() }),
            Err(error) => Err(DataError::torn(&name, "an image's bytes", error)),
        }
    }

    fn label(&self, index: usize) -> u32 {
        self.rows[index].2
    }

    fn prefetch(&self, indices: &[usize]) {
        for &index in indices {
            let (shard, row, _) = self.rows[index];
            let shard = &self.shards[shard as usize];
            if shard.spill.is_none() {
                let page = shard.page(row);
                shard.path.prefetch(page.start, page.end - page.start);
            }
        }
    }
}

impl Shard {
    /// Memory that reading an image takes: the largest dictionary with the largest page.
    fn bytes_per_image(&self) -> u64 {
        let group = |(number, (_, pages)): (usize, &Group)| {
            let (start, length) = self.metadata.row_group(number).column(self.column).byte_range();
            let offsets = pages.iter().map(|page| page.0);
            let ends = offsets.clone().skip(1).chain([start + length]);
            let dictionary = pages.first().map_or(0, |first| first.0 - start);
            let largest = offsets.zip(ends).map(|(offset, end)| end - offset).max();
            dictionary + largest.unwrap_or(0)
        };
        self.groups.iter().enumerate().map(group).max().unwrap_or(0)
    }

    /// All images in the order of rows; one that is null has no bytes.
    fn all_images(&self, put: Put<'_>) -> io::Result<()> {
        let reader = SerializedFileReader::new(self.path.chunks()?)?;
        for (group, (rows, _)) in self.groups.iter().enumerate() {
            let column = reader.get_row_group(group)?.get_column_reader(self.column)?;
            let ColumnReader::ByteArrayColumnReader(mut column) = column else {
                return Err(io::Error::other("a column of other values"));
            };
            // A value is a part of its page: few at a time hold few pages.
            const ROWS: usize = 16;
            let defined = defined(&self.metadata, self.column);
            let mut left = *rows as usize;
            while left > 0 {
                for value in all_values(&mut column, left.min(ROWS), defined)? {
                    put(value.as_ref().map_or(&[], ByteArray::data))?;
                }
                left -= left.min(ROWS);
            }
        }
        Ok(())
    }

    /// The row group of a row, and its place there.
    fn group_of(&self, mut row: u32) -> (usize, u32) {
        let mut group = 0;
        while row >= self.groups[group].0 {
            row -= self.groups[group].0;
            group += 1;
        }
        (group, row)
    }

    /// The bytes of the page that has a row.
    fn page(&self, row: u32) -> Range<u64> {
        let (group, row) = self.group_of(row);
        let pages = &self.groups[group].1;
        let (start, length) = self.metadata.row_group(group).column(self.column).byte_range();
        let next = pages.partition_point(|&(_, first)| first <= row);
        let end = pages.get(next).map_or(start + length, |page| page.0);
        pages[..next].last().map_or(0..0, |page| page.0..end)
    }

    /// The bytes in a row, if it has any. Reads the page that has the row, and a dictionary if there is one.
    fn image(&self, row: u32) -> ParquetResult<Option<Vec<u8>>> {
        let (group, row) = self.group_of(row);
        let (rows, pages) = &self.groups[group];
        let column = self.metadata.row_group(group).column(self.column);
        let (start, length) = column.byte_range();
        let ends = pages.iter().skip(1).map(|page| page.0).chain([start + length]);
        let locations = pages.iter().zip(ends).map(|(&(offset, first_row), end)| PageLocation {
            offset: offset as i64,
            compressed_page_size: (end - offset) as i32,
            first_row_index: i64::from(first_row),
        });
        let reader = SerializedPageReader::new(
            Arc::new(self.path.chunks()?),
            column,
            *rows as usize,
            Some(locations.collect()),
        )?;
        match get_column_reader(column.column_descr_ptr(), Box::new(reader)) {
            ColumnReader::ByteArrayColumnReader(mut reader) => {
                reader.skip_records(row as usize)?;
                let (mut levels, mut values) = (vec![], vec![]);
                reader.read_records(1, Some(&mut levels), None, &mut values)?;
                Ok(values.pop().map(|value| value.data().to_vec()))
            }
            _ => Err(ParquetError::General("a column of other values".to_owned())),
        }
    }
}

/// The data set in the files that a pattern names. Test images whose labels are all −1, as of a
/// competition, are left out.
///
/// # Errors
/// Files that are missing or not Parquet, columns that are not there or may be several, rows without a label, or
/// classes that training does not have.
pub(crate) fn load(
    pattern: &Path,
    columns: &Columns,
    name: String,
    purpose: Purpose,
    options: &LoadOptions<'_>,
) -> Result<Parts, DataError> {
    let shards = shards::find(pattern, ".parquet")?;
    if purpose == Purpose::Training {
        shards.check_training(pattern)?;
    }
    let scan = |path: &ShardFile| caught(|| scan(path, columns), torn(path));
    let mut parts = shards.indexed(&format!("parquet{columns}"), purpose, options, scan)?;
    let mut warnings = shards.warnings.clone();
    let test = &mut parts[Split::Test as usize];
    let unlabelled = |(_, own): &(ShardFile, Contents)| own.labels.iter().all(|&label| label == -1);
    if purpose == Purpose::Training && !test.is_empty() && test.iter().all(unlabelled) {
        warnings.push("test images are left out: they have no labels, all are -1".to_owned());
        test.clear();
    }
    let Classes { names, labels, warning } = classes::unify(pattern, &mut parts)?;
    warnings.extend(warning);
    let column = parts.iter().flatten().next().map(|(_, own)| own.label_column.clone());
    let mut part = |split: Split| -> Result<Option<Part>, DataError> {
        let own = std::mem::take(&mut parts[split as usize]);
        if own.is_empty() {
            return Ok(None);
        }
        let source = Arc::new(table(own, columns, options)?);
        Ok(Some(Part { source, from: shards.from(split) }))
    };
    Ok(Parts {
        name,
        path: pattern.to_owned(),
        train: part(Split::Train)?,
        val: part(Split::Val)?,
        test: part(Split::Test)?,
        unsplit: shards.unsplit,
        class_names: names,
        labels: format!("column `{}`, {labels}", column.unwrap_or_default()),
        warnings,
    })
}

fn table(
    part: Scanned<Contents>,
    columns: &Columns,
    options: &LoadOptions<'_>,
) -> Result<Table, DataError> {
    let mut rows = vec![];
    for (shard, (path, contents)) in (0..).zip(&part) {
        for (row, &label) in (0..).zip(&contents.labels) {
            let label = u32::try_from(label).map_err(|_| {
                DataError::format(&path.join(format!("row {row}")), "a class number", label)
            })?;
            rows.push((shard, row, label));
        }
    }
    let path = |shard: u32, row: u32| part[shard as usize].1.paths.get(row as usize);
    rows.sort_by(|&(a_shard, a_row, a), &(b_shard, b_row, b)| {
        (a, path(a_shard, a_row), a_shard, a_row).cmp(&(b, path(b_shard, b_row), b_shard, b_row))
    });
    let open = |(path, contents): (ShardFile, Contents)| {
        let (metadata, leaves) = open(&path, columns)?;
        let (column, groups) = (leaves.bytes, contents.groups);
        Ok(Shard { path, spill: None, metadata, column, groups })
    };
    let shards: Vec<Result<Shard, DataError>> = part.into_par_iter().map(open).collect();
    let mut shards: Vec<Shard> = shards.into_iter().collect::<Result<_, _>>()?;
    spill(&mut shards, options);
    Ok(Table { shards, rows })
}

/// Copies the images of shards whose pages are too large, where there is room and that is not done yet.
fn spill(shards: &mut [Shard], options: &LoadOptions<'_>) {
    let Some(cache) = &options.cache else { return };
    let mut coarse: Vec<&mut Shard> =
        shards.iter_mut().filter(|shard| shard.bytes_per_image() > MOST_BYTES_READ).collect();
    coarse.iter_mut().for_each(|shard| shard.spill = Spill::open(cache, &shard.path));
    coarse.retain(|shard| shard.spill.is_none());
    let missing = coarse.len();
    if missing > 0 {
        (options.progress)(0, missing);
    }
    let done = AtomicUsize::new(0);
    coarse.into_par_iter().for_each(|shard| {
        let all = |put: Put<'_>| caught(|| shard.all_images(put), io::Error::from);
        shard.spill = Spill::make(cache, &shard.path, all);
        (options.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, missing);
    });
    for shard in shards {
        let rows: usize = shard.groups.iter().map(|(rows, _)| *rows as usize).sum();
        shard.spill = shard.spill.take().filter(|spill| spill.len() == rows);
    }
}

/// The most that is read of a file for one image.
const MOST_BYTES_READ: u64 = 2 << 20;

/// Labels, paths and pages of a file.
fn scan(path: &ShardFile, columns: &Columns) -> Result<Contents, DataError> {
    let (metadata, leaves) = open(path, columns)?;
    let file = || path.chunks().map_err(DataError::read(path));
    let reader = SerializedFileReader::new(file()?).map_err(torn(path))?;
    let (mut labels, mut paths, mut groups) = (LabelColumn::default(), vec![], vec![]);
    for group in 0..metadata.num_row_groups() {
        let rows = usize::try_from(metadata.row_group(group).num_rows()).unwrap_or(0);
        let group_reader = reader.get_row_group(group).map_err(torn(path))?;
        let column = |leaf| group_reader.get_column_reader(leaf).map_err(torn(path));
        let of_label = defined(&metadata, leaves.label);
        labels.add(column(leaves.label)?, rows, of_label).map_err(torn(path))?;
        if let Some(leaf) = leaves.path
            && let ColumnReader::ByteArrayColumnReader(mut reader) = column(leaf)?
        {
            let values = all_values(&mut reader, rows, defined(&metadata, leaf));
            let values: Vec<Option<ByteArray>> = values.map_err(torn(path))?;
            paths.extend(values.into_iter().map(|value| text_of(value).unwrap_or_default()));
        }
        let pages = pages(file()?, &metadata, group, leaves.bytes).map_err(torn(path))?;
        groups.push((rows as u32, pages));
    }
    let rows: usize = groups.iter().map(|(rows, _): &Group| *rows as usize).sum();
    let Leaves { class_names, label_name, .. } = leaves;
    let (labels, names) = labels.finish(path, class_names)?;
    if labels.len() != rows {
        return Err(DataError::format(path, format!("{rows} labels"), labels.len()));
    }
    Ok(Contents { labels, names, label_column: label_name, paths, groups })
}

/// Returns the result of `read`, or an error where it panics: the crate `parquet` does on some damaged files.
fn caught<T, E>(
    read: impl FnOnce() -> Result<T, E>,
    error: impl FnOnce(ParquetError) -> E,
) -> Result<T, E> {
    // Nothing that `read` has changed is looked at after a panic.
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(error(ParquetError::General("damaged, its reader gave up".to_owned())))
    })
}

/// The level at which a column's value is there.
fn defined(metadata: &ParquetMetaData, leaf: usize) -> i16 {
    metadata.file_metadata().schema_descr().column(leaf).max_def_level()
}

/// The next values of a column that does not repeat; none where it is null.
fn all_values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    defined: i16,
) -> ParquetResult<Vec<Option<T::T>>> {
    let (mut levels, mut values) = (vec![], vec![]);
    let mut read = 0;
    while read < rows {
        let (records, ..) =
            reader.read_records(rows - read, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    // A column that must not be null has no levels.
    if levels.is_empty() || values.len() == levels.len() {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    let value = |level: i16| if level == defined { values.next() } else { None };
    Ok(levels.into_iter().map(value).collect())
}

/// Offset and first row of each page of a column, read from the pages' headers.
fn pages(
    file: Chunks,
    metadata: &ParquetMetaData,
    group: usize,
    leaf: usize,
) -> ParquetResult<Vec<(u64, u32)>> {
    let group = metadata.row_group(group);
    let noted = Arc::new(Noting { file, last: AtomicU64::new(0) });
    let rows = group.num_rows() as usize;
    let mut reader = SerializedPageReader::new(noted.clone(), group.column(leaf), rows, None)?;
    let (mut pages, mut first_row) = (vec![], 0);
    while let Some(page) = reader.peek_next_page()? {
        if !page.is_dict {
            pages.push((noted.last.load(Ordering::Relaxed), first_row));
            // Where nothing repeats, a row is a level.
            first_row += page.num_rows.or(page.num_levels).unwrap_or(0) as u32;
        }
        reader.skip_next_page()?;
    }
    if first_row as usize != rows {
        return Err(ParquetError::General(format!("{first_row} of {rows} images")));
    }
    Ok(pages)
}

/// A file that notes where the last reader began: at the header of the current page.
struct Noting {
    file: Chunks,
    last: AtomicU64,
}

impl Length for Noting {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Noting {
    type T = <Chunks as ChunkReader>::T;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.last.store(start, Ordering::Relaxed);
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.file.get_bytes(start, length)
    }
}

#[cfg(test)]
mod tests;
