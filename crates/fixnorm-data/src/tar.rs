//! WebDataset shards: tar files of images with their labels beside them, read in place, or in a plain copy if compressed.
//!
//! A sample is what has one key: the name up to the first dot of its last part, or up to its last dot where an
//! image has a label file of exactly that name. Its label is a number or a name in `.cls`, else the `label` (or
//! `cls`) of a `.json`. Where no image has either, the directories within the tar file are classes. Names of
//! numbered classes come from `classes.txt` beside the shards, a name a line, if there is one.
//!
//! Images are in the order of class and name, not of shards: the same tree gives the same epochs in any
//! form. One is read by its offset, which the index keeps.
//! Not here: which file is a shard of what (`shards.rs`), members of a shard (`tar/scan.rs`), which of them are
//! images of samples (`tar/samples.rs`), labels to classes (`tar/labels.rs`), the index itself (`index.rs`).

use std::path::Path;
use std::sync::Arc;

use crate::decode::MAX_FILE_BYTES;
use crate::index::LoadOptions;
use crate::left_out::LeftOut;
use crate::names::{counted, first_few, text_of};
use crate::parts::{Part, Parts, Purpose};
use crate::shard_file::ShardFile;
use crate::shards::{self, Scanned, Shards};
use crate::split_names::SPLITS;
use crate::{Columns, DataError, Encoded, Sample, Source, Split};

mod labels;
mod samples;
mod scan;

use samples::Chosen;
use scan::{Contents, Member};

/// Images in shards, by their places.
struct Tar {
    shards: Arc<Vec<ShardFile>>,
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
        match shard.read(member.offset, member.size) {
            Ok(bytes) => Ok(Sample::Encoded(Encoded { bytes, name })),
            Err(source) => Err(DataError::read(&name)(source)),
        }
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn prefetch(&self, indices: &[usize]) {
        for (shard, member) in indices.iter().map(|&index| &self.members[index]) {
            if member.size <= MAX_FILE_BYTES {
                self.shards[*shard as usize].prefetch(member.offset, member.size);
            }
        }
    }
}

/// The data set in the shards that a pattern names.
///
/// # Errors
/// Shards that are missing or no tar files, images without a label or with several, or labels of different kinds.
pub(crate) fn load(
    pattern: &Path,
    columns: &Columns,
    name: String,
    purpose: Purpose,
    options: &LoadOptions<'_>,
) -> Result<Parts, DataError> {
    let shards = shards::find(pattern, ".tar")?;
    if purpose == Purpose::Training {
        shards.check_training(pattern)?;
    }
    let kind = format!("tar{columns}");
    let scanned = shards.indexed(&kind, purpose, options, |path| scan::scan(path, columns))?;
    let mut warnings = shards.warnings.clone();
    warnings.extend(cut_short(pattern, &scanned)?);
    warnings.extend(disagreeing(&scanned));
    let mut left_out = LeftOut::default();
    scanned.iter().flatten().for_each(|(_, contents)| left_out.merge(contents.left_out.clone()));
    let (files, Chosen { mut parts, within }) =
        samples::choose(pattern, columns, &shards, scanned, &mut left_out)?;
    let labelled = labels::label(pattern, &files, &mut parts)?;
    warnings.extend(left_out.warning());
    warnings.extend(labelled.warnings);
    let mut part = |split: Split| {
        let own = std::mem::take(&mut parts[split as usize]);
        let there = !own.is_empty() || !shards.of(split).is_empty();
        // A part that was not asked for was not read.
        let read = there && purpose.wants(split, |split| within || !shards.of(split).is_empty());
        (read || !own.is_empty()).then(|| Part {
            source: Arc::new(sorted(files.clone(), own, labelled.directories)),
            from: if within { format!("{split} in the tar files") } else { shards.from(split) },
        })
    };
    Ok(Parts {
        name,
        path: pattern.to_owned(),
        train: part(Split::Train),
        val: part(Split::Val),
        test: part(Split::Test),
        unsplit: shards.unsplit && !within,
        class_names: labelled.classes,
        labels: labelled.source,
        warnings,
    })
}

/// A member with its shard and label.
struct Placed {
    shard: u32,
    member: Member,
    label: u32,
}

/// Images in the order of label, name, shard and place; where directories are classes, files of a directory are
/// before those of directories in it.
fn sorted(shards: Arc<Vec<ShardFile>>, mut placed: Vec<Placed>, directories: bool) -> Tar {
    let directory = |member: &Member| {
        let parent = Path::new(&member.name).parent().filter(|_| directories);
        parent.map(Path::to_owned)
    };
    placed.sort_by_cached_key(|own| {
        let Placed { shard, member, label } = own;
        (*label, directory(member), member.name.clone(), *shard, member.offset)
    });
    Tar {
        labels: placed.iter().map(|own| own.label).collect(),
        members: placed.into_iter().map(|own| (own.shard, own.member)).collect(),
        shards,
    }
}

/// A word about shards that end without the mark of their end, as files do whose copy was interrupted.
///
/// # Errors
/// More than one, and more than a tenth, of shards of which others have the mark.
fn cut_short(
    pattern: &Path,
    scanned: &[Scanned<Contents>; 3],
) -> Result<Option<String>, DataError> {
    let all = || scanned.iter().flatten();
    let cut: Vec<String> = all()
        .filter(|(_, contents)| !contents.whole)
        .map(|(path, _)| text_of(path.file_name().unwrap_or(path.as_os_str())))
        .collect();
    if cut.is_empty() {
        return Ok(None);
    }
    let (names, of) = (first_few(&cut), all().count());
    if cut.len() > 1 && cut.len() < of && cut.len() * 10 > of {
        return Err(DataError::Layout {
            path: pattern.to_owned(),
            problem: format!(
                "{} of {of} shards end without an end-of-archive mark, so images may be missing: {names}",
                cut.len()
            ),
            remedy: "copy them again".to_owned(),
        });
    }
    Ok(Some(format!(
        "{} without an end-of-archive mark, so images may be missing: {names}",
        counted(cut.len(), "shard")
    )))
}

/// A word about samples whose `.cls` and `.json` give different labels.
fn disagreeing(scanned: &[Scanned<Contents>; 3]) -> Option<String> {
    let count: usize = scanned.iter().flatten().map(|(_, contents)| contents.disagreeing).sum();
    let samples = counted(count, "sample");
    (count > 0).then(|| {
        format!("{samples} with another label in .json than in .cls, which counts; ?label=json takes the other")
    })
}

impl Shards {
    /// Whether there are training files.
    pub(crate) fn check_training(&self, pattern: &Path) -> Result<(), DataError> {
        if !self.of(Split::Train).is_empty() {
            return Ok(());
        }
        let there = SPLITS.into_iter().filter(|&split| !self.of(split).is_empty());
        let there =
            there.map(|split| format!("{} ({} images)", self.from(split), split.adjective()));
        Err(DataError::Layout {
            path: pattern.to_owned(),
            problem: format!("no training files, only {}", there.collect::<Vec<_>>().join(" and ")),
            remedy: "name the training files too".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
