//! From the labels of a set of tar files to classes: numbers with names from `classes.txt`, names, directories.
//! Not here: where labels stand (`tar/scan.rs`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Placed;
use super::scan::Label;
use crate::names::{class_list, class_list_in, first_few};
use crate::shard_file::ShardFile;
use crate::split_names::of_directory;
use crate::{DataError, classes, parts};

/// The classes of the images.
pub(super) struct Labelled {
    pub(super) classes: Vec<String>,
    /// Source of the labels, for people.
    pub(super) source: String,
    /// Whether directories are classes.
    pub(super) directories: bool,
    pub(super) warnings: Vec<String>,
}

/// Gives every image its label.
///
/// # Errors
/// Images without a label, labels of several kinds, or of classes that the first part does not have.
pub(super) fn label(
    pattern: &Path,
    shards: &[ShardFile],
    all: &mut [Vec<Placed>; 3],
) -> Result<Labelled, DataError> {
    let none = || DataError::NoImages { path: pattern.to_owned() };
    let first = all.iter().flatten().next().ok_or_else(none)?;
    match &first.member.label {
        None => directories(shards, all),
        Some(Label::Number(_)) => numbers(pattern, shards, all),
        Some(Label::Text(_)) => names(pattern, shards, all),
    }
}

/// The error for an image whose label is of another kind than the others'.
fn wrong(shards: &[ShardFile], placed: &Placed, expected: &str) -> DataError {
    let expected = match &placed.member.label {
        None => "a .cls or .json with its label (?label=ENDING names another), or a directory",
        Some(_) => expected,
    };
    let found = match &placed.member.label {
        None => "none".to_owned(),
        Some(Label::Number(number)) => format!("the number {number}"),
        Some(Label::Text(name)) => format!("the name `{name}`"),
    };
    DataError::format(&shards[placed.shard as usize].join(&placed.member.name), expected, found)
}

/// `classes.txt` beside each shard, or in the directory that the user named.
fn lists(pattern: &Path, shards: &[ShardFile]) -> Result<Vec<Option<Vec<String>>>, DataError> {
    let mut known: HashMap<PathBuf, Option<Vec<String>>> = HashMap::new();
    let above = pattern.join("classes.txt");
    let above = if pattern.is_dir() && above.exists() { Some(class_list(&above)?) } else { None };
    let of = |shard: &ShardFile| {
        let path = shard.with_file_name("classes.txt");
        if let Some(list) = known.get(&path) {
            return Ok(list.clone());
        }
        let beside = shard.beside("classes.txt")?.map(|bytes| class_list_in(&path, bytes));
        let list = beside.transpose()?.or_else(|| above.clone());
        known.insert(path, list.clone());
        Ok(list)
    };
    shards.iter().map(of).collect()
}

fn numbers(
    pattern: &Path,
    shards: &[ShardFile],
    all: &mut [Vec<Placed>; 3],
) -> Result<Labelled, DataError> {
    let lists = lists(pattern, shards)?;
    let list = all.iter().flatten().find_map(|placed| lists[placed.shard as usize].clone());
    // By name, where a shard has a list of its own.
    let mapped = |own: &Option<Vec<String>>| {
        let (own, list) = (own.as_ref()?, list.as_ref()?);
        (own != list).then(|| classes::places(own, list))
    };
    let places: Vec<Option<Vec<Option<u32>>>> = lists.iter().map(mapped).collect();
    for placed in all.iter_mut().flatten() {
        let Some(Label::Number(number)) = placed.member.label else {
            return Err(wrong(shards, placed, "a class number, as other images have"));
        };
        placed.label = number;
        let shard = placed.shard as usize;
        if let (Some(places), Some(own)) = (&places[shard], &lists[shard])
            && let Some(place) = places.get(number as usize)
        {
            placed.label = place.ok_or_else(|| {
                let expected = "a class of the first shards' classes.txt";
                let found = format!("`{}`", own[number as usize]);
                DataError::format(&shards[shard].join(&placed.member.name), expected, found)
            })?;
        }
    }
    let mut warnings = vec![];
    if places.iter().any(Option::is_some) {
        warnings.push(
            "classes.txt differs between directories: classes are matched by name".to_owned(),
        );
    }
    let named = list.is_some();
    let classes = match list {
        Some(list) => list,
        None => {
            let first = all.iter().find(|part| !part.is_empty()).into_iter().flatten();
            let largest = first.map(|placed| placed.label).max().unwrap_or(0);
            parts::numbered(u64::from(largest), pattern)?
        }
    };
    let source = if named { "numbers, named by classes.txt" } else { "numbers without names" };
    Ok(Labelled { classes, source: source.to_owned(), directories: false, warnings })
}

/// The places of names in a list of classes, which is that of the first part where there is no other.
fn by_name(
    shards: &[ShardFile],
    all: &mut [Vec<Placed>; 3],
    list: Option<Vec<String>>,
) -> Result<Vec<String>, DataError> {
    let name_of = |placed: &Placed| match &placed.member.label {
        Some(Label::Text(name)) => Ok(name.clone()),
        _ => Err(wrong(shards, placed, "the name of a class, as other images have")),
    };
    let list = match list {
        Some(list) => list,
        None => {
            let first = all.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
            let mut names: Vec<String> = first.iter().map(name_of).collect::<Result<_, _>>()?;
            names.sort_unstable();
            names.dedup();
            names
        }
    };
    let places: HashMap<&str, u32> = list.iter().map(String::as_str).zip(0..).collect();
    for placed in all.iter_mut().flatten() {
        let name = name_of(placed)?;
        placed.label = *places.get(name.as_str()).ok_or_else(|| {
            let path = shards[placed.shard as usize].join(&placed.member.name);
            let expected = format!("a class of the training images ({})", first_few(&list));
            DataError::format(&path, expected, format!("`{name}`"))
        })?;
    }
    Ok(list)
}

fn names(
    pattern: &Path,
    shards: &[ShardFile],
    all: &mut [Vec<Placed>; 3],
) -> Result<Labelled, DataError> {
    let list = lists(pattern, shards)?.into_iter().flatten().next();
    let classes = by_name(shards, all, list)?;
    Ok(Labelled { classes, source: "names".to_owned(), directories: false, warnings: vec![] })
}

fn directories(shards: &[ShardFile], all: &mut [Vec<Placed>; 3]) -> Result<Labelled, DataError> {
    for part in all.iter_mut() {
        // Of each part, since each may have a root of its own.
        let common = common(part);
        for placed in part {
            if placed.member.label.is_some() {
                return Err(wrong(shards, placed, "its directory as class, as other images have"));
            }
            let below = below_split(&placed.member.name);
            let class = below.get(common).map(|name| Label::Text((*name).to_owned()));
            placed.member.label =
                Some(class.ok_or_else(|| wrong(shards, placed, "its directory as class"))?);
        }
    }
    let classes = by_name(shards, all, None)?;
    let source = "directories within the tar files".to_owned();
    Ok(Labelled { classes, source, directories: true, warnings: vec![] })
}

/// The directories of a member below that of a split.
fn below_split(name: &str) -> Vec<&str> {
    let mut directories: Vec<&str> = name.split('/').collect();
    directories.pop();
    // The last one is a class, whatever it is called.
    let above = directories.len().saturating_sub(1);
    let split = directories[..above].iter().rposition(|name| of_directory(name.as_ref()).is_some());
    directories.split_off(split.map_or(0, |place| place + 1))
}

/// The number of directories that all members lie in, beginning below that of a split, so that each is in one
/// more.
fn common(all: &[Placed]) -> usize {
    let Some(first) = all.first() else { return 0 };
    let first = below_split(&first.member.name);
    let mut common = first.len().saturating_sub(1);
    for placed in all {
        let own = below_split(&placed.member.name);
        common = common.min(own.len().saturating_sub(1));
        common = first.iter().zip(&own).take(common).take_while(|(a, b)| a == b).count();
    }
    common
}
