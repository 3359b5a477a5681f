//! Which files a pattern names, and which of them train, validate and test.
//! Not here: patterns themselves (`pattern.rs`), words for splits (`split_names.rs`), what is in the files
//! (`tar.rs`, `parquet.rs`).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::index::{self, LoadOptions};
use crate::names::{counted, first_few, is_junk, is_url, text_of};
use crate::parts::Purpose;
use crate::pattern::{expand, matching, without_ranges};
use crate::plain_tar::Compression;
use crate::shard_file::{self, ShardFile};
use crate::split_names::{Named, SPLITS, Said, of_directory, of_file};
use crate::{DataError, Split};

/// Files by what they are for, each list in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shards {
    /// The files of training, validation and test.
    pub(crate) files: [Vec<PathBuf>; 3],
    /// Whether no name means a split; all are training files then.
    pub(crate) unsplit: bool,
    pub(crate) warnings: Vec<String>,
    /// The words in their names.
    words: [Option<&'static str>; 3],
}

/// The files of one split, with what was found in each.
pub(crate) type Scanned<T> = Vec<(ShardFile, T)>;

impl Shards {
    /// The files that a purpose wants with what `scan` finds in them, from the index where it holds.
    ///
    /// # Errors
    /// The first file that cannot be unpacked or scanned.
    pub(crate) fn indexed<T>(
        &self,
        kind: &str,
        purpose: Purpose,
        options: &LoadOptions<'_>,
        scan: impl Fn(&ShardFile) -> Result<T, DataError> + Sync,
    ) -> Result<[Scanned<T>; 3], DataError>
    where
        T: Serialize + DeserializeOwned + Send,
    {
        let wanted = SPLITS.map(|split| {
            // Where names of files say nothing, directories within them may.
            let wanted = self.unsplit || purpose.wants(split, |split| !self.of(split).is_empty());
            if wanted { self.of(split).to_vec() } else { vec![] }
        });
        let counts = wanted.each_ref().map(Vec::len);
        let files = shard_file::open_all(wanted.concat(), options)?;
        let found = index::of_each(kind, &files, options, scan)?;
        let mut scanned = files.into_iter().zip(found);
        Ok(counts.map(|count| scanned.by_ref().take(count).collect()))
    }

    pub(crate) fn of(&self, split: Split) -> &[PathBuf] {
        &self.files[split as usize]
    }

    /// Where the images of a split are from, for people.
    pub(crate) fn from(&self, split: Split) -> String {
        let files = counted(self.of(split).len(), "file");
        match self.words[split as usize] {
            Some(word) => format!("{files} called `{word}`"),
            None => files,
        }
    }
}

/// The files that a pattern names: those that fit `*`, `?`, `{a,b}` and `{00..12}`, or a directory's files of
/// `kind`, also in directories below it that are named as a split, or in the only one that has such files.
///
/// A file belongs to the split that is a word of its name, or else to that of the nearest directory. Where no
/// name means training, files whose names mean nothing train. A pattern that fits training files only and has
/// `train` in it brings those that fit with the words of validation and test in its place.
///
/// # Errors
/// No file of `kind`, one that is missing, a pattern that is none, or names that mean several things.
pub(crate) fn find(pattern: &Path, kind: &'static str) -> Result<Shards, DataError> {
    let (mut files, mut warnings) = if is_url(pattern) {
        (named_by_url(pattern, kind)?, vec![])
    } else if pattern.is_dir() {
        in_directory(pattern, kind, 0)?
    } else {
        (fitting(pattern)?, vec![])
    };
    if files.is_empty() {
        return Err(DataError::NoShards {
            pattern: pattern.to_owned(),
            kind,
            hint: others_there(pattern),
        });
    }
    warnings.extend(without_packed_twins(&mut files));
    warnings.extend(incomplete(&files));
    let mut shards = sorted(pattern, files)?;
    shards.warnings = warnings;
    // What else a server has is not known.
    let alone = !shards.of(Split::Train).is_empty() && !is_url(pattern);
    if alone && SPLITS[1..].iter().all(|&s| shards.of(s).is_empty()) {
        add_twins(&mut shards, pattern, kind)?;
    }
    Ok(shards)
}

/// Files with the directories of a split, below the one that the user named, that they lie in.
type Located = Vec<(PathBuf, Option<Named>)>;

/// The files that fit a pattern; every list and range in braces must fit some.
fn fitting(pattern: &Path) -> Result<Located, DataError> {
    let found = matching(pattern)?;
    let missing: Vec<&str> =
        found.iter().filter(|(_, files)| files.is_empty()).map(|(text, _)| text.as_str()).collect();
    if !missing.is_empty() && missing.len() < found.len() {
        let place = |text: &&str| Path::new(*text).file_name().map(text_of).unwrap_or_default();
        let names: Vec<String> = missing.iter().map(place).collect();
        return Err(DataError::Layout {
            path: pattern.to_owned(),
            problem: format!(
                "{} of {} are missing: {}",
                names.len(),
                found.len(),
                first_few(&names)
            ),
            remedy: "fetch what is missing, or name only the files that are there".to_owned(),
        });
    }
    let mut files: Vec<PathBuf> = found.into_iter().flat_map(|(_, files)| files).collect();
    files.sort();
    files.dedup();
    Ok(files.into_iter().map(|file| (file, None)).collect())
}

/// The files that a URL stands for: a server's files are those that braces name.
fn named_by_url(pattern: &Path, kind: &str) -> Result<Located, DataError> {
    let wrong = |problem: &str| DataError::Layout {
        path: pattern.to_owned(),
        problem: problem.to_owned(),
        remedy: format!("name the files by braces, such as train-{{0000..0146}}{kind}"),
    };
    let text = text_of(pattern.as_os_str());
    if text.contains(['*', '[']) {
        return Err(wrong("files of servers and stores are not listed"));
    }
    let files = expand(&text).ok_or_else(|| wrong("more files than any set has"))?;
    let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    let of_kind = |file: &PathBuf| file.file_name().is_some_and(|name| has_ending(name, kind));
    if !files.iter().all(of_kind) {
        return Err(wrong(&format!("it names no {kind} file")));
    }
    Ok(files.into_iter().map(|file| (file, None)).collect())
}

/// Deeper, files are no part of a set that a directory names.
const DEEPEST: usize = 4;

/// The files of `kind` in a directory, in those below it that are named as a split, or in the only one.
fn in_directory(dir: &Path, kind: &str, depth: usize) -> Result<(Located, Vec<String>), DataError> {
    let (mut files, mut others): (Located, Vec<(PathBuf, Located)>) = (vec![], vec![]);
    let mut warnings = vec![];
    for entry in fs::read_dir(dir).map_err(DataError::read(dir))? {
        let name = entry.map_err(DataError::read(dir))?.file_name();
        let path = dir.join(&name);
        if is_junk(&name) {
            continue;
        }
        if path.is_dir() && depth < DEEPEST {
            let (found, own) = in_directory(&path, kind, depth + 1)?;
            if found.is_empty() {
                continue;
            }
            warnings.extend(own);
            match of_directory(&name) {
                Some(named) => {
                    files.extend(
                        found.into_iter().map(|(file, inner)| (file, inner.or(Some(named)))),
                    );
                }
                None => others.push((path, found)),
            }
        } else if path.is_file() && has_ending(&name, kind) {
            files.push((path, None));
        }
    }
    others.sort();
    let names: Vec<String> =
        others.iter().filter_map(|(path, _)| path.file_name()).map(text_of).collect();
    match (files.is_empty(), others.len()) {
        (true, 1) => files = others.remove(0).1,
        (true, 2..) => {
            return Err(DataError::Layout {
                path: dir.to_owned(),
                problem: format!("{kind} files in several directories: {}", first_few(&names)),
                remedy: "name one of them".to_owned(),
            });
        }
        (false, 1..) => warnings.push(format!(
            "{} of {} with {kind} files left out: {}",
            counted(others.len(), "directory").replace("ys", "ies"),
            dir.display(),
            first_few(&names)
        )),
        _ => {}
    }
    files.sort();
    Ok((files, warnings))
}

/// Whether a file's name is one of `kind`; tar files may be compressed.
fn has_ending(name: &OsStr, kind: &str) -> bool {
    text_of(name).to_ascii_lowercase().ends_with(kind)
        || (kind == ".tar" && Compression::of(name).is_some())
}

/// Leaves out compressed files whose plain ones are there too, and says so.
fn without_packed_twins(files: &mut Located) -> Option<String> {
    let there: HashSet<PathBuf> = files.iter().map(|(file, _)| file.clone()).collect();
    let mut left_out = vec![];
    files.retain(|(file, _)| {
        let name = file.file_name().unwrap_or_default();
        let plain = Compression::of(name).map(|(_, plain)| file.with_file_name(plain));
        let twice = plain.is_some_and(|plain| there.contains(&plain));
        if twice {
            left_out.push(text_of(name));
        }
        !twice
    });
    let count = counted(left_out.len(), "compressed file");
    (!left_out.is_empty())
        .then(|| format!("{count} left out, unpacked beside them: {}", first_few(&left_out)))
}

/// Files by their splits.
fn sorted(pattern: &Path, files: Located) -> Result<Shards, DataError> {
    let mut shards = Shards::default();
    let mut nameless = vec![];
    for (file, below) in files {
        let named = match of_file(file.file_stem().unwrap_or_default()) {
            Said::One(named) => Some(named),
            Said::Several(first, second) => {
                return Err(DataError::Layout {
                    path: file,
                    problem: format!("its name has words for {first} and for {second} images"),
                    remedy: "rename it, or its copy, so that it has one".to_owned(),
                });
            }
            Said::Nothing => below.or_else(|| of_directory(file.parent()?.file_name()?)),
        };
        let Some(Named { split, word }) = named else {
            nameless.push(file);
            continue;
        };
        match shards.words[split as usize].replace(word) {
            Some(other) if other != word => return Err(two_words(pattern, split, other, word)),
            _ => shards.files[split as usize].push(file),
        }
    }
    if nameless.is_empty() {
        return Ok(shards);
    }
    let names: Vec<String> =
        nameless.iter().filter_map(|file| file.file_name()).map(text_of).collect();
    if let Some(word) = shards.words[Split::Train as usize] {
        return Err(DataError::Layout {
            path: pattern.to_owned(),
            problem: format!(
                "beside files called `{word}` there are some whose names mean no split: {}",
                first_few(&names)
            ),
            remedy: format!(
                "name the files by a pattern that leaves them out, such as {{{word},val}}-*"
            ),
        });
    }
    shards.unsplit = shards.files.iter().all(Vec::is_empty);
    shards.files[Split::Train as usize] = nameless;
    Ok(shards)
}

fn two_words(pattern: &Path, split: Split, one: &str, other: &str) -> DataError {
    let adjective = split.adjective();
    DataError::Layout {
        path: pattern.to_owned(),
        problem: format!(
            "`{one}` and `{other}` both mean {adjective} images, and there are files of both"
        ),
        remedy: format!("name one of them by a pattern, such as {{train,{one}}}-*"),
    }
}

/// Adds the files of validation and test that a pattern of training files leaves out: beside a directory
/// called `train`, those of a split; of other patterns, the files that fit with another word for `train`.
fn add_twins(shards: &mut Shards, pattern: &Path, kind: &str) -> Result<(), DataError> {
    let mut found: Vec<(Named, Vec<PathBuf>)> = vec![];
    if pattern.is_dir() {
        let is_train = |name: &OsStr| of_directory(name).is_some_and(|n| n.split == Split::Train);
        let parent = pattern.parent().filter(|_| pattern.file_name().is_some_and(is_train));
        let Some(parent) = parent else { return Ok(()) };
        let shown = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        for entry in fs::read_dir(shown).into_iter().flatten().flatten() {
            let path = parent.join(entry.file_name());
            if let Some(named) = of_directory(&entry.file_name()).filter(|_| path.is_dir()) {
                let files = in_directory(&path, kind, 0)?.0.into_iter().map(|(file, _)| file);
                found.push((named, files.collect()));
            }
        }
    } else {
        for (named, twin) in twins(&text_of(pattern.as_os_str())) {
            let files = matching(Path::new(&twin))?.into_iter().flat_map(|(_, files)| files);
            found.push((named, files.collect()));
        }
    }
    for (Named { split, word }, mut files) in found {
        if split == Split::Train || files.is_empty() {
            continue;
        }
        if let Some(other) = shards.words[split as usize] {
            return Err(two_words(pattern, split, other, word));
        }
        files.sort();
        files.dedup();
        shards.words[split as usize] = Some(word);
        shards.files[split as usize] = files;
    }
    Ok(())
}

/// A pattern with each word of validation and test in the place of its word for training.
fn twins(text: &str) -> Vec<(Named, String)> {
    let lower = text.to_ascii_lowercase();
    let of_training = ["train", "training"].into_iter();
    let ends =
        of_training.filter_map(|word| lower.rfind(word).map(|place| (place, place + word.len())));
    let Some((place, end)) = ends.max() else { return vec![] };
    let written = &text[place..end];
    let alike = |word: &str| {
        let capital = written.chars().next().is_some_and(char::is_uppercase);
        let loud = written.chars().all(char::is_uppercase);
        match (loud, capital) {
            (true, _) => word.to_uppercase(),
            (false, true) => word[..1].to_uppercase() + &word[1..],
            _ => word.to_owned(),
        }
    };
    let twin = |split: Split, word: &'static str| {
        let text = format!("{}{}{}", &text[..place], alike(word), &text[end..]);
        (Named { split, word }, without_ranges(&text))
    };
    let words =
        SPLITS[1..].iter().flat_map(|&split| split.words().iter().map(move |w| (split, *w)));
    words.map(|(split, word)| twin(split, word)).collect()
}

/// What is missing of files that are numbered as `name-00000-of-00005.parquet`.
fn incomplete(files: &Located) -> Option<String> {
    let mut missing: Vec<String> = vec![];
    let mut seen: Vec<(PathBuf, String)> = vec![];
    let there = |path: &Path| files.iter().any(|(file, _)| file == path);
    for (file, _) in files {
        let name = text_of(file.file_name()?);
        let Some((before, total, after)) = numbered(&name) else { continue };
        let group = (file.parent()?.to_owned(), format!("{before}{total}{after}"));
        // Names may end with a digest of their own content.
        if !after.starts_with('.') || seen.contains(&group) {
            continue;
        }
        let count = total.parse().unwrap_or(0).min(100_000);
        let names =
            (0..count).map(|n| format!("{before}-{n:0w$}-of-{total}{after}", w = total.len()));
        missing.extend(names.filter(|name| !there(&file.with_file_name(name))));
        seen.push(group);
    }
    let files = counted(missing.len(), "file");
    (!missing.is_empty())
        .then(|| format!("{files} missing by the names of others: {}", first_few(&missing)))
}

/// What stands before the number, the total, and what stands behind it.
fn numbered(name: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = name.split_once("-of-")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (stem, number) = before.rsplit_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (digits && end == number.len()).then(|| (stem, &rest[..end], &rest[end..]))
}

/// What is there where no shard is: files that would have to be unpacked or written otherwise.
fn others_there(pattern: &Path) -> String {
    const KNOWN: [(&str, &str); 5] = [
        (".tar.bz2", "unpack them with bunzip2"),
        (".tar.xz", "unpack them with unxz"),
        (".zip", "unpack them and use folder:DIR"),
        (".arrow", "write Parquet files with `to_parquet` of Hugging Face's datasets"),
        (".tfrecord", "write WebDataset shards or Parquet files"),
    ];
    let dir = if pattern.is_dir() { pattern } else { pattern.parent().unwrap_or(pattern) };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| text_of(&entry.file_name()).to_ascii_lowercase())
        .collect();
    let known = KNOWN.iter().find(|(ending, _)| names.iter().any(|name| name.contains(ending)));
    known.map_or_else(String::new, |(ending, what)| format!("; there are {ending} files: {what}"))
}

#[cfg(test)]
mod tests;
