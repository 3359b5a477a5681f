//! A directory tree of image files: `train/CLASS/*.jpg`, `val/CLASS/…`, `test/CLASS/…`.
//!
//! Classes are the directories in `train`, sorted; images are sorted by class, directory and name, as
//! torchvision's `ImageFolder` has them. No index is kept: to know that one still holds, every directory would
//! have to be listed all the same.
//! Not here: which directories are which parts (`folder/layout.rs`), decoding (`decode.rs`).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::decode::read_encoded;
use crate::left_out::{LeftOut, Reason};
use crate::names::{first_few, is_junk, text_of};
use crate::parts::{Part, Parts, Purpose};
use crate::split_names::{SPLITS, of_directory};
use crate::walk::{check_depth, ending, is_image, may_be_image};
use crate::{DataError, Sample, Source, Split};

mod layout;

use layout::Layout;

/// Image files with the labels of their directories.
struct Folder {
    root: PathBuf,
    /// Below `root`.
    files: Vec<Box<Path>>,
    labels: Vec<u32>,
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        read_encoded(&self.root.join(&self.files[index])).map(Sample::Encoded)
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }
}

/// The data set in `dir`. Where no directory is named as a split, the classes are those in `dir` itself.
///
/// # Errors
/// Directories that cannot be read or whose names are unclear, a class without training images, or one that
/// training does not have.
pub(crate) fn load(dir: &Path, name: String, purpose: Purpose) -> Result<Parts, DataError> {
    let Layout { roots, unsplit, mut warnings } = layout::of(dir, purpose)?;
    let wanted = SPLITS.map(|split| {
        let wants = purpose.wants(split, |split| roots[split as usize].is_some());
        roots[split as usize].as_ref().filter(|_| wants)
    });
    if purpose == Purpose::Training && wanted[0].is_none() {
        return Err(layout::no_training(dir, &roots));
    }
    let Some(first) = wanted.iter().flatten().next() else {
        let split = match purpose {
            Purpose::Evaluation(Some(split)) => split,
            _ => Split::Val,
        };
        return Err(DataError::EmptyPart { path: dir.to_owned(), split });
    };
    let classes = classes(first)?;
    let mut left_out = LeftOut::default();
    let mut next = |split: Split| -> Result<Option<Part>, DataError> {
        let Some(root) = wanted[split as usize] else { return Ok(None) };
        let mut own = LeftOut::default();
        let folder = part(root, &classes, &mut own)?;
        if folder.is_empty() && own.count() > 0 {
            return Err(none_but(root, split, &own));
        }
        left_out.merge(own);
        if split == Split::Train && purpose == Purpose::Training {
            check_train(&folder, &classes)?;
        }
        let from = text_of(root.file_name().unwrap_or(root.as_os_str()));
        Ok(Some(Part { source: Arc::new(folder), from }))
    };
    let (train, val, test) = (next(Split::Train)?, next(Split::Val)?, next(Split::Test)?);
    warnings.extend(left_out.warning());
    Ok(Parts {
        name,
        path: dir.to_owned(),
        train,
        val,
        test,
        unsplit,
        class_names: classes.iter().map(|class| text_of(class)).collect(),
        labels: "names of directories".to_owned(),
        warnings,
    })
}

/// The error for a part that has files, but no images.
fn none_but(root: &Path, split: Split, left_out: &LeftOut) -> DataError {
    DataError::Layout {
        path: root.to_owned(),
        problem: format!(
            "no {} images that can be read, but {}",
            split.adjective(),
            left_out.words()
        ),
        remedy: "convert the files, or remove the directory".to_owned(),
    }
}

/// Every class must have a training image.
fn check_train(train: &Folder, classes: &[OsString]) -> Result<(), DataError> {
    let mut present = vec![false; classes.len()];
    train.labels.iter().for_each(|&label| present[label as usize] = true);
    let Some(class) = present.iter().position(|&present| !present) else { return Ok(()) };
    let path = train.root.join(&classes[class]);
    // Listed again, for what is there instead.
    let listed = list(&train.root, Path::new(&classes[class]), 0)?;
    if listed.left_out.count() == 0 {
        return Err(DataError::NoImages { path });
    }
    Err(none_but(&path, Split::Train, &listed.left_out))
}

/// The directories in `root`, sorted; hidden ones and those of tools are left out.
fn classes(root: &Path) -> Result<Vec<OsString>, DataError> {
    let mut classes = layout::directories(root)?;
    classes.sort();
    if classes.is_empty() {
        return Err(DataError::format(root, "a directory for each class", "none"));
    }
    Ok(classes)
}

/// The images of `classes` in `root`; a class may be missing here.
fn part(root: &Path, known: &[OsString], left_out: &mut LeftOut) -> Result<Folder, DataError> {
    if let Some(class) =
        classes(root)?.into_iter().find(|class| known.binary_search(class).is_err())
    {
        let names: Vec<String> = known.iter().map(|class| text_of(class)).collect();
        let expected = format!("a class of the training images ({})", first_few(&names));
        return Err(DataError::format(&root.join(class), expected, "another directory"));
    }
    let listed: Vec<_> = known
        .par_iter()
        .map(|class| {
            if root.join(class).is_dir() {
                list(root, Path::new(class), 0)
            } else {
                Ok(Listed::default())
            }
        })
        .collect();
    let (mut files, mut labels) = (vec![], vec![]);
    for (label, own) in listed.into_iter().enumerate() {
        let mut own = own?;
        own.files.sort();
        left_out.merge(own.left_out);
        labels.resize(labels.len() + own.files.len(), label as u32);
        files.extend(own.files.into_iter().map(|(dir, name)| dir.join(name).into_boxed_path()));
    }
    beside_classes(root, left_out)?;
    Ok(Folder { root: root.to_owned(), files, labels })
}

/// Counts images that lie beside the directories of classes.
fn beside_classes(root: &Path, left_out: &mut LeftOut) -> Result<(), DataError> {
    for entry in fs::read_dir(root).map_err(DataError::read(root))? {
        let path = entry.map_err(DataError::read(root))?.path();
        let name = path.file_name().unwrap_or_default();
        if is_image(&path) && !is_junk(name) && !path.is_dir() {
            left_out.add(Reason::NoClass, || text_of(name));
        }
    }
    Ok(())
}

/// The content of a class's directory.
#[derive(Default)]
struct Listed {
    /// Directory and name of every image file.
    files: Vec<(PathBuf, OsString)>,
    left_out: LeftOut,
}

/// The images in `dir` and below it. What has an image's name counts as one, unless reading it would never end:
/// reading it will say what is wrong.
fn list(root: &Path, dir: &Path, depth: usize) -> Result<Listed, DataError> {
    let here = root.join(dir);
    check_depth(&here, depth)?;
    let mut listed = Listed::default();
    for entry in fs::read_dir(&here).map_err(DataError::read(&here))? {
        let entry = entry.map_err(DataError::read(&here))?;
        let name = entry.file_name();
        let shown = || text_of(dir.join(&name).as_os_str());
        let image = is_image(Path::new(&name));
        if is_junk(&name) {
            if image {
                listed.left_out.add(Reason::Hidden, shown);
            }
            continue;
        }
        let kind = entry.file_type().map_err(DataError::read(&here))?;
        if kind.is_dir() || (!image && kind.is_symlink() && entry.path().is_dir()) {
            if image {
                listed.files.push((dir.to_owned(), name));
                continue;
            }
            check_class_directory(&here, &name, depth)?;
            let below = list(root, &dir.join(&name), depth + 1)?;
            listed.files.extend(below.files);
            listed.left_out.merge(below.left_out);
        } else if !kind.is_file() && !kind.is_symlink() {
            listed.left_out.add(Reason::Special, shown);
        } else if image {
            listed.files.push((dir.to_owned(), name));
        } else if may_be_image(&ending(&name)) {
            listed.left_out.add(Reason::Ending(ending(&name)), shown);
        }
    }
    Ok(listed)
}

/// A directory of a split in one of a class: the classes lie a level deeper than the user thinks, or the splits.
fn check_class_directory(class: &Path, name: &OsStr, depth: usize) -> Result<(), DataError> {
    if depth == 0 && of_directory(name).is_some() {
        return Err(DataError::Layout {
            path: class.to_owned(),
            problem: format!("it would be a class, but holds a directory `{}`", text_of(name)),
            remedy: "name the directory that holds train/CLASS, or move CLASS/train to train/CLASS"
                .to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
