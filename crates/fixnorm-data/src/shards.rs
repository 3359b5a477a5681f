//! Which files a pattern names, and which of them train, validate and test.
//! Not here: what is in them (`tar.rs`, `parquet.rs`).

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::DataError;
use crate::index::{self, LoadOptions};

/// Files by what they are for, each list in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shards {
    pub(crate) train: Vec<PathBuf>,
    pub(crate) val: Vec<PathBuf>,
    pub(crate) test: Vec<PathBuf>,
}

impl Shards {
    /// The files of each part with what `scan` finds in them, from the index where it holds.
    ///
    /// # Errors
    /// The first file that cannot be scanned.
    pub(crate) fn indexed<T>(
        self,
        kind: &str,
        options: &LoadOptions<'_>,
        scan: impl Fn(&Path) -> Result<T, DataError> + Sync,
    ) -> Result<[Vec<(PathBuf, T)>; 3], DataError>
    where
        T: Serialize + DeserializeOwned + Send,
    {
        let all = [&self.train[..], &self.val, &self.test].concat();
        let mut found = index::of_each(kind, &all, options, scan)?.into_iter();
        // `zip` asks its first side first, so that nothing of the next part is taken.
        Ok([self.train, self.val, self.test]
            .map(|files| files.into_iter().zip(found.by_ref()).collect()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Train,
    Val,
    Test,
}

/// A part's names: the first is what its files are called where a pattern names only training files.
const NAMES: [(Part, &[&str]); 3] = [
    (Part::Train, &["train", "training"]),
    (Part::Val, &["val", "validation", "valid"]),
    (Part::Test, &["test"]),
];

/// The files that a pattern names: a directory's files of `kind`, or those that fit `*`, `?`, `{a,b}` and
/// `{00..12}`.
///
/// A file belongs to the part that is a word of its name, or else of its directory's name, and to training
/// where neither says anything. A pattern that fits training files only and has `train` in it brings those
/// that fit with `val` (or `validation`, `valid`) and `test` in its place.
///
/// # Errors
/// No file of `kind` for training, or a pattern that is none.
pub(crate) fn find(pattern: &Path, kind: &'static str) -> Result<Shards, DataError> {
    let text = pattern.to_str().ok_or_else(|| wrong(pattern, "it is not Unicode"))?;
    let text = match pattern.is_dir() {
        true => format!("{}/*{kind}", glob::Pattern::escape(text.trim_end_matches('/'))),
        false => text.to_owned(),
    };
    let mut shards = Shards::default();
    for file in matching(pattern, &text)? {
        match part_of(&file) {
            Some(Part::Val) => shards.val.push(file),
            Some(Part::Test) => shards.test.push(file),
            Some(Part::Train) | None => shards.train.push(file),
        }
    }
    if shards.train.is_empty() {
        return Err(DataError::NoShards { pattern: pattern.to_owned(), kind });
    }
    if let Some(place) = text.rfind("train")
        && shards.val.is_empty()
        && shards.test.is_empty()
    {
        for (part, names) in &NAMES[1..] {
            for name in *names {
                let twin = format!("{}{name}{}", &text[..place], &text[place + "train".len()..]);
                let found = matching(pattern, &twin)?;
                if !found.is_empty() {
                    match part {
                        Part::Val => shards.val = found,
                        _ => shards.test = found,
                    }
                    break;
                }
            }
        }
    }
    Ok(shards)
}

fn wrong(pattern: &Path, found: impl ToString) -> DataError {
    DataError::format(pattern, "a pattern of files", found)
}

fn matching(pattern: &Path, text: &str) -> Result<Vec<PathBuf>, DataError> {
    let mut files = vec![];
    for text in braces(text) {
        let found = glob::glob(&text).map_err(|error| wrong(pattern, error))?;
        for file in found {
            let file = file.map_err(|error| {
                let path = error.path().to_owned();
                DataError::read(&path)(error.into())
            })?;
            if file.is_file() {
                files.push(file);
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The part that a file's name, or else its directory's, has as a word.
fn part_of(file: &Path) -> Option<Part> {
    let directory = file.parent().and_then(Path::file_name);
    [file.file_name(), directory].into_iter().flatten().find_map(|name| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
        words.find_map(|word| {
            let own = NAMES.iter().find(|(_, names)| names.contains(&word));
            own.map(|&(part, _)| part)
        })
    })
}

/// The most files that one pair of braces may stand for.
const MOST_FILES: usize = 1 << 20;

/// A pattern with braces as those without that it stands for: `a-{0,1}` and, with as many digits as the
/// first number has, `a-{000..146}`. Braces that are neither are left as they are.
fn braces(text: &str) -> Vec<String> {
    let Some((open, close)) =
        text.find('{').and_then(|open| Some((open, open + text[open..].find('}')?)))
    else {
        return vec![text.to_owned()];
    };
    let (before, within, after) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    let range = within.split_once("..").and_then(|(first, last)| {
        let (from, to): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (from <= to && to - from < MOST_FILES)
            .then(|| (from..=to).map(|n| format!("{n:0width$}", width = first.len())).collect())
    });
    let choices: Vec<String> = match range {
        Some(numbers) => numbers,
        None => within.split(',').map(str::to_owned).collect(),
    };
    let after = braces(after);
    let join = |choice: &String| -> Vec<String> {
        after.iter().map(|rest| format!("{before}{choice}{rest}")).collect()
    };
    choices.iter().flat_map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn found(dir: &tempfile::TempDir, pattern: &str) -> [Vec<String>; 3] {
        let Shards { train, val, test } = find(&dir.path().join(pattern), ".tar").unwrap();
        [train, val, test].map(|files| {
            let names = files.iter().map(|file| file.strip_prefix(dir.path()).unwrap());
            names.map(|name| name.display().to_string()).collect()
        })
    }

    #[test]
    fn names_say_what_files_are_for() {
        let names =
            ["a-train-01.tar", "a-train-00.tar", "a-validation-0.tar", "a-test.tar", "b.txt"];
        let dir = tree(&names);
        let expected = [
            vec!["a-train-00.tar", "a-train-01.tar"],
            vec!["a-validation-0.tar"],
            vec!["a-test.tar"],
        ];
        assert_eq!(found(&dir, ""), expected);
        assert_eq!(found(&dir, "a-*.tar"), expected);
        let [train, val, test] = found(&dir, "a-train-00.tar");
        assert_eq!((train.len(), val.len(), test.len()), (1, 0, 0));
        let [train, val, _] = found(&dir, "a-{train,validation}-*.tar");
        assert_eq!((train.len(), val.len()), (2, 1));
    }

    #[test]
    fn the_twin_of_a_training_pattern_validates() {
        let dir =
            tree(&["d/train/0.tar", "d/train/1.tar", "d/val/0.tar", "d/test/0.tar", "e/0.tar"]);
        assert_eq!(found(&dir, "d/train/*.tar")[1], ["d/val/0.tar"]);
        assert_eq!(found(&dir, "d/train/*.tar")[2], ["d/test/0.tar"]);
        assert_eq!(found(&dir, "d/{train,val}/*.tar")[1], ["d/val/0.tar"]);
        assert_eq!(found(&dir, "e"), [vec!["e/0.tar".to_owned()], vec![], vec![]]);
    }

    #[test]
    fn braces_stand_for_lists_and_ranges() {
        assert_eq!(
            braces("a{08..10}-{x,y}"),
            ["a08-x", "a08-y", "a09-x", "a09-y", "a10-x", "a10-y"]
        );
        assert_eq!(braces("plain"), ["plain"]);
        assert_eq!(braces("open{a"), ["open{a"]);
        assert_eq!(braces("{9..0}"), ["9..0"]);
    }

    #[test]
    fn patterns_that_fit_nothing_are_named() {
        let dir = tree(&["a-val.tar"]);
        for pattern in ["none-*.tar", "", "a-val.tar"] {
            let error = find(&dir.path().join(pattern), ".tar").unwrap_err().to_string();
            assert!(error.ends_with("fits no .tar file"), "{error}");
        }
        let error = find(Path::new("a***.tar"), ".tar").unwrap_err().to_string();
        assert!(error.contains("expected a pattern"), "{error}");
    }
}
