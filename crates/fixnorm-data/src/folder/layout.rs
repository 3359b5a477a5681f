//! Which directories of a tree hold training, validation and test images.
//! Not here: words for splits (`split_names.rs`), the images in them (`folder.rs`).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::names::{first_few, is_junk, text_of};
use crate::parts::Purpose;
use crate::split_names::{Named, SPLITS, of_directory};
use crate::walk::{ending, is_image, may_be_image};
use crate::{DataError, Split};

/// The directories that hold the classes of each split.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) roots: [Option<PathBuf>; 3],
    /// Whether no directory is named as a split; the first root is the tree's own then.
    pub(super) unsplit: bool,
    pub(super) warnings: Vec<String>,
}

/// A directory of a split.
struct Child {
    named: Named,
    path: PathBuf,
    holds: Holds,
}

/// The direct content of a directory.
#[derive(Clone, Copy, Default)]
struct Holds {
    directories: bool,
    images: bool,
    others: bool,
}

/// Finds out.
///
/// # Errors
/// Names that mean several things, and trees that begin a level higher or lower.
pub(super) fn of(dir: &Path, purpose: Purpose) -> Result<Layout, DataError> {
    let mut layout = Layout { roots: Default::default(), unsplit: false, warnings: vec![] };
    let mut children = vec![];
    let mut others = vec![];
    for name in directories(dir)? {
        let path = dir.join(&name);
        match of_directory(&name) {
            Some(named) => children.push(Child { named, holds: look(&path)?, path }),
            None => others.push(name),
        }
    }
    others.sort();
    children.sort_by_key(|child| child.named);
    layout.warnings.extend(archives(dir)?);
    let train = children.iter().find(|child| child.named.split == Split::Train);
    // A class may be called `train` where the other directories are classes too.
    let class = train.is_some_and(|train| train.holds.images && !train.holds.directories);
    if children.is_empty() || (children.len() == 1 && class && !others.is_empty()) {
        return unsplit(dir, &others, purpose, layout);
    }
    if train.is_none() && !others.is_empty() {
        let names: Vec<String> = others.iter().map(|name| text_of(name)).collect();
        return Err(DataError::Layout {
            path: dir.to_owned(),
            problem: format!(
                "`{}` is a name for {} images, beside directories that mean no split: {}",
                shown(&children[0].path),
                children[0].named.split.adjective(),
                first_few(&names)
            ),
            remedy: "move the classes to train/CLASS, or rename the directory if it is a class"
                .to_owned(),
        });
    }
    let first = children.first().map(|child| child.path.clone()).unwrap_or_default();
    for child in children {
        add(&mut layout, dir, child, purpose)?;
    }
    if layout.roots.iter().all(Option::is_none) {
        return Err(DataError::format(&first, "a directory for each class", "none"));
    }
    let beside = others
        .iter()
        .filter(|name| look(&dir.join(name)).is_ok_and(|holds| holds.directories || holds.images));
    let beside: Vec<String> = beside.map(|name| text_of(name)).collect();
    if !beside.is_empty() {
        let names = first_few(&beside);
        layout.warnings.push(format!("left out, for their names mean no split: {names}"));
    }
    Ok(layout)
}

/// Adds the directory of a split, if it can be one.
fn add(layout: &mut Layout, dir: &Path, child: Child, purpose: Purpose) -> Result<(), DataError> {
    let Child { named: Named { split, .. }, path, holds } = child;
    if let Some(other) = &layout.roots[split as usize] {
        return Err(DataError::Layout {
            path: dir.to_owned(),
            problem: format!(
                "`{}` and `{}` both mean {} images",
                shown(other),
                shown(&path),
                split.adjective()
            ),
            remedy: "rename or move one of them".to_owned(),
        });
    }
    let wanted = purpose.wants(split, |_| true);
    match holds {
        Holds { directories: true, .. } => layout.roots[split as usize] = Some(path),
        Holds { images: true, .. } if split == Split::Test && purpose == Purpose::Training => {
            let name = shown(&path);
            layout.warnings.push(format!(
                "`{name}` is left out: it holds images without directories of classes"
            ));
        }
        _ if !wanted => {}
        Holds { images: true, .. } => {
            return Err(DataError::format(
                &path,
                "a directory for each class",
                "images without them",
            ));
        }
        Holds { others: true, .. } => {
            return Err(DataError::format(&path, "a directory for each class", "other files"));
        }
        _ => return Err(DataError::EmptyPart { path, split }),
    }
    Ok(())
}

/// The layout of a tree whose directories are classes.
fn unsplit(
    dir: &Path,
    classes: &[OsString],
    purpose: Purpose,
    mut layout: Layout,
) -> Result<Layout, DataError> {
    let holds = look(dir)?;
    if !holds.directories {
        if holds.images {
            let remedy = match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => {
                    format!("name the directory above, folder:{}", text_of(parent.as_os_str()))
                }
                None => "name the directory above".to_owned(),
            };
            let problem = "images, but no directory for each class; a level too low?".to_owned();
            return Err(DataError::Layout { path: dir.to_owned(), problem, remedy });
        }
        return Err(DataError::format(dir, "a directory for each class", "none"));
    }
    if let [only] = classes {
        one_class(dir, &dir.join(only), purpose)?;
    }
    if let Some(named) =
        dir.file_name().and_then(of_directory).filter(|_| purpose == Purpose::Training)
    {
        match (named.split, splits_beside(dir)) {
            (Split::Train, beside) if !beside.is_empty() => layout.warnings.push(format!(
                "beside `{}` are directories of other splits, which are not read: {}; name the directory above to use them",
                shown(dir),
                first_few(&beside)
            )),
            (Split::Train, _) => {}
            (split, _) => layout.warnings.push(format!(
                "trains on images of a directory called `{}`, a name for {} images",
                shown(dir),
                split.adjective()
            )),
        }
    }
    layout.unsplit = true;
    layout.roots[0] = Some(dir.to_owned());
    Ok(layout)
}

/// Refuses what is the only class if the classes are in it, or in a directory that is alone in it.
fn one_class(dir: &Path, only: &Path, purpose: Purpose) -> Result<(), DataError> {
    let mut inner = only.to_owned();
    let mut within = directories(&inner)?;
    while within.len() == 1 && of_directory(&within[0]).is_none() && inner.components().count() < 64
    {
        inner.push(&within[0]);
        within = directories(&inner)?;
    }
    let splits = within.iter().any(|name| of_directory(name).is_some());
    let classes = within.len() > 1 && !look(&inner)?.images;
    if splits || (classes && (purpose == Purpose::Training || inner != only)) {
        return Err(DataError::Layout {
            path: dir.to_owned(),
            problem: format!(
                "a single directory, `{}`, in which others look like classes or splits; a level too high?",
                shown(only)
            ),
            remedy: format!("name the one that holds them, folder:{}", text_of(inner.as_os_str())),
        });
    }
    Ok(())
}

/// The names of other splits' directories beside `dir`.
fn splits_beside(dir: &Path) -> Vec<String> {
    let names = dir.parent().and_then(|parent| directories(parent).ok()).unwrap_or_default();
    let others =
        names.iter().filter(|name| of_directory(name).is_some_and(|n| n.split != Split::Train));
    let mut others: Vec<String> = others.map(|name| text_of(name)).collect();
    others.sort();
    others
}

/// The error for a tree without training images.
pub(super) fn no_training(dir: &Path, roots: &[Option<PathBuf>; 3]) -> DataError {
    let there =
        SPLITS.into_iter().filter_map(|split| Some((split, roots[split as usize].as_ref()?)));
    let there: Vec<String> = there
        .map(|(split, path)| format!("`{}` ({} images)", shown(path), split.adjective()))
        .collect();
    DataError::Layout {
        path: dir.to_owned(),
        problem: format!("no training images, only {}", there.join(" and ")),
        remedy: "put them into train/CLASS, or name another directory".to_owned(),
    }
}

/// The names of the directories in `dir`, and of links to some; without hidden ones and those of tools.
///
/// # Errors
/// A directory that cannot be read, or a link called as a split that leads nowhere.
pub(super) fn directories(dir: &Path) -> Result<Vec<OsString>, DataError> {
    let mut names = vec![];
    for entry in fs::read_dir(dir).map_err(DataError::read(dir))? {
        let entry = entry.map_err(DataError::read(dir))?;
        let (name, path) = (entry.file_name(), entry.path());
        if is_junk(&name) {
            continue;
        }
        if path.is_dir() {
            names.push(name);
        } else if of_directory(&name).is_some() && !path.exists() {
            return Err(DataError::format(&path, "a directory", "a link that leads nowhere"));
        }
    }
    Ok(names)
}

/// A word about archives that are called as a split.
fn archives(dir: &Path) -> Result<Option<String>, DataError> {
    const ENDINGS: [&str; 8] = ["zip", "tar", "tgz", "gz", "bz2", "xz", "7z", "rar"];
    let mut found = vec![];
    for entry in fs::read_dir(dir).map_err(DataError::read(dir))? {
        let name = entry.map_err(DataError::read(dir))?.file_name();
        let stem = text_of(&name).split('.').next().unwrap_or_default().to_owned();
        if ENDINGS.contains(&ending(&name).as_str()) && of_directory(stem.as_ref()).is_some() {
            found.push(text_of(&name));
        }
    }
    found.sort();
    Ok((!found.is_empty()).then(|| format!("archives are not read: {}", first_few(&found))))
}

/// What lies in `dir`.
fn look(dir: &Path) -> Result<Holds, DataError> {
    let mut holds = Holds::default();
    for entry in fs::read_dir(dir).map_err(DataError::read(dir))? {
        let entry = entry.map_err(DataError::read(dir))?;
        let name = entry.file_name();
        let kind = entry.file_type().map_err(DataError::read(dir))?;
        if is_junk(&name) {
            continue;
        }
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            holds.directories = true;
        } else if is_image(Path::new(&name)) {
            holds.images = true;
        } else {
            holds.others |= may_be_image(&ending(&name));
        }
        if holds.directories && holds.images {
            break;
        }
    }
    Ok(holds)
}

fn shown(path: &Path) -> String {
    text_of(path.file_name().unwrap_or(path.as_os_str()))
}
