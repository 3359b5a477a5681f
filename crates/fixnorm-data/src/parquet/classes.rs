//! The labels of several Parquet files as numbers of one list of classes.
//! Not here: reading them (`parquet.rs`), which column they are (`parquet/schema.rs`).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Contents;
use crate::names::first_few;
use crate::shard_file::ShardFile;
use crate::shards::Scanned;
use crate::{DataError, classes, parts};

/// The kind of a file's labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Names {
    /// Numbers without names.
    None,
    /// Numbers of this list.
    Listed(Vec<String>),
    /// Text; a label is its number in this sorted list.
    Text(Vec<String>),
}

impl Names {
    fn list(&self) -> Option<&[String]> {
        match self {
            Names::None => None,
            Names::Listed(list) | Names::Text(list) => Some(list),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Names::None => "numbers without names",
            Names::Listed(_) => "numbers with names in the metadata",
            Names::Text(_) => "text",
        }
    }
}

/// Class names, source of the labels, and a word about what was mapped.
pub(super) struct Classes {
    pub(super) names: Vec<String>,
    pub(super) labels: &'static str,
    pub(super) warning: Option<String>,
}

/// Maps all labels by name to those of the first part that is there, whose files' lists are joined.
///
/// # Errors
/// Files of different kinds, or labels of classes that the first part does not have.
pub(super) fn unify(
    pattern: &Path,
    parts: &mut [Scanned<Contents>; 3],
) -> Result<Classes, DataError> {
    let Some(first) = parts.iter().find(|part| !part.is_empty()) else {
        return Err(DataError::NoImages { path: pattern.to_owned() });
    };
    let kind = first[0].1.names.kind();
    let different = parts.iter().flatten().find(|(_, own)| own.names.kind() != kind);
    if let Some((path, own)) = different {
        let expected = format!("labels that are {kind}, as in {}", first[0].0.display());
        return Err(DataError::format(path, expected, own.names.kind()));
    }
    let Some(names) = joined(first) else {
        let largest = first.iter().flat_map(|(_, own)| &own.labels).max();
        let names = parts::numbered(largest.map_or(0, |&label| label.max(0) as u64), pattern)?;
        return Ok(Classes { names, labels: kind, warning: None });
    };
    let listed = matches!(first[0].1.names, Names::Listed(_));
    let mut differ = false;
    for (path, own) in parts.iter_mut().flatten() {
        differ |= own.names.list().is_some_and(|list| list != names);
        map(path, own, &names)?;
    }
    let warning = (differ && listed)
        .then(|| "class lists differ between files: classes are matched by name".to_owned());
    Ok(Classes { names, labels: kind, warning })
}

/// The names in all files: sorted where they are text, else in the order of the first that has them.
fn joined(files: &[(ShardFile, Contents)]) -> Option<Vec<String>> {
    let mut all: Vec<String> = files[0].1.names.list()?.to_vec();
    let mut known: std::collections::HashSet<&str> =
        files[0].1.names.list()?.iter().map(String::as_str).collect();
    for name in files[1..].iter().filter_map(|(_, own)| own.names.list()).flatten() {
        if known.insert(name) {
            all.push(name.clone());
        }
    }
    if matches!(files[0].1.names, Names::Text(_)) {
        all.sort_unstable();
    }
    Some(all)
}

/// Maps the labels of a file.
fn map(path: &Path, own: &mut Contents, names: &[String]) -> Result<(), DataError> {
    let Some(list) = own.names.list().filter(|list| *list != names) else { return Ok(()) };
    let places = classes::places(list, names);
    for (row, label) in own.labels.iter_mut().enumerate() {
        let place =
            usize::try_from(*label).ok().and_then(|label| Some((label, *places.get(label)?)));
        match place {
            // Out of range, which is found later.
            None => {}
            Some((_, Some(place))) => *label = i64::from(place),
            Some((label, None)) => {
                let expected = format!("a class of the training images ({})", first_few(names));
                let found = format!("`{}`", list[label]);
                return Err(DataError::format(&path.join(format!("row {row}")), expected, found));
            }
        }
    }
    Ok(())
}
