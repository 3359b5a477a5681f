//! A directory tree of image files: `train/CLASS/*.jpg`, `val/CLASS/…`, `test/CLASS/…`.
//!
//! Classes are the directories in `train`, sorted; images are sorted by class, directory and name, as
//! torchvision's `ImageFolder` has them. No index is kept: to know that one still holds, every directory would
//! have to be listed all the same.
//! Not here: decoding (`decode.rs`).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::decode::read_encoded;
use crate::parts::Parts;
use crate::walk::is_image;
use crate::{DataError, DataSet, Sample, Source};

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

/// The data set in `dir`. Without a directory `train`, the classes are those in `dir` itself.
///
/// # Errors
/// Directories that cannot be read, a class without images, or one that training does not have.
pub(crate) fn load(dir: &Path, name: String) -> Result<DataSet, DataError> {
    let below = |names: &[&str]| names.iter().map(|name| dir.join(name)).find(|dir| dir.is_dir());
    let root = below(&["train"]).unwrap_or_else(|| dir.to_owned());
    let classes = classes(&root)?;
    let train = part(&root, &classes)?;
    let absent = (0..classes.len()).find(|&class| !train.labels.contains(&(class as u32)));
    if let Some(class) = absent {
        return Err(DataError::NoImages { path: root.join(&classes[class]) });
    }
    // A tree that is all training may well have a class that is called like a part.
    let other = |names: &[&str]| -> Result<Option<Arc<dyn Source>>, DataError> {
        match below(names).filter(|_| root != dir) {
            Some(root) => Ok(Some(Arc::new(part(&root, &classes)?))),
            None => Ok(None),
        }
    };
    let (val, test) = (other(&["val", "validation", "valid"])?, other(&["test"])?);
    let names = classes.iter().map(|class| class.to_string_lossy().into_owned()).collect();
    Parts { train: Arc::new(train), val, test }.data_set(name, dir.to_owned(), names)
}

/// The directories in `root`, sorted.
fn classes(root: &Path) -> Result<Vec<OsString>, DataError> {
    let mut classes = vec![];
    for entry in fs::read_dir(root).map_err(DataError::read(root))? {
        let entry = entry.map_err(DataError::read(root))?;
        if entry.path().is_dir() {
            classes.push(entry.file_name());
        }
    }
    classes.sort();
    match classes.is_empty() {
        true => Err(DataError::format(root, "a directory for each class", "none")),
        false => Ok(classes),
    }
}

/// The images of `classes` in `root`; a class may be missing here.
fn part(root: &Path, known: &[OsString]) -> Result<Folder, DataError> {
    if let Some(class) =
        classes(root)?.into_iter().find(|class| known.binary_search(class).is_err())
    {
        let expected = "a class of the training images";
        return Err(DataError::format(&root.join(class), expected, "another directory"));
    }
    let listed: Vec<_> = known
        .par_iter()
        .map(|class| match root.join(class).is_dir() {
            true => list(root, Path::new(class), 0),
            false => Ok(vec![]),
        })
        .collect();
    let (mut files, mut labels) = (vec![], vec![]);
    for (label, own) in listed.into_iter().enumerate() {
        let mut own = own?;
        own.sort();
        labels.resize(labels.len() + own.len(), label as u32);
        files.extend(own.into_iter().map(|(dir, name)| dir.join(name).into_boxed_path()));
    }
    Ok(Folder { root: root.to_owned(), files, labels })
}

/// Deeper than any tree that was meant; links can lead in a circle.
const DEEPEST: usize = 16;

/// Directory and name of every image file in `dir` and below it. What has an image's name counts as one,
/// whatever it is: reading it will say what is wrong.
fn list(root: &Path, dir: &Path, depth: usize) -> Result<Vec<(PathBuf, OsString)>, DataError> {
    let here = root.join(dir);
    if depth > DEEPEST {
        let expected = format!("at most {DEEPEST} directories in each other");
        return Err(DataError::format(&here, expected, "more; a link may lead in a circle"));
    }
    let mut found = vec![];
    for entry in fs::read_dir(&here).map_err(DataError::read(&here))? {
        let entry = entry.map_err(DataError::read(&here))?;
        let name = entry.file_name();
        if is_image(Path::new(&name)) {
            found.push((dir.to_owned(), name));
        } else {
            let kind = entry.file_type().map_err(DataError::read(&here))?;
            if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
                found.extend(list(root, &dir.join(name), depth + 1)?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(4, 3).save_with_format(path, image::ImageFormat::Png).unwrap();
        }
        dir
    }

    fn names(source: &Arc<dyn Source>) -> Vec<(String, u32)> {
        let name = |index| match source.sample(index).unwrap() {
            Sample::Encoded(encoded) => {
                encoded.name.file_name().unwrap().to_str().unwrap().to_owned()
            }
            Sample::Pixels(_) => panic!("a file"),
        };
        (0..source.len()).map(|index| (name(index), source.label(index))).collect()
    }

    fn load_dir(dir: &tempfile::TempDir) -> Result<DataSet, DataError> {
        load(dir.path(), "folder".to_owned())
    }

    #[test]
    fn classes_and_images_are_sorted_as_torchvision_sorts_them() {
        let dir = tree(&[
            "train/b/2.png",
            "train/b/1.JPEG",
            "train/a/z.jpg",
            "train/a/sub/0.webp",
            "train/a-b/0.png",
            "val/b/0.png",
            "test/a/0.png",
        ]);
        fs::write(dir.path().join("train/a/notes.txt"), "").unwrap();
        let data = load_dir(&dir).unwrap();
        assert_eq!(data.class_names, ["a", "a-b", "b"]);
        assert_eq!(data.shape, None);
        let expected = [("z.jpg", 0), ("0.webp", 0), ("0.png", 1), ("1.JPEG", 2), ("2.png", 2)];
        assert_eq!(names(&data.train), expected.map(|(name, label)| (name.to_owned(), label)));
        assert_eq!(names(&data.val), [("0.png".to_owned(), 2)]);
        assert_eq!(data.test.unwrap().len(), 1);
        // A PNG whatever its name says.
        assert_eq!(data.train.image(0).unwrap().width, 4);
    }

    #[test]
    fn without_val_a_balanced_part_of_train_validates() {
        let files: Vec<String> = (0..48)
            .map(|i| format!("train/{}/{i:02}.png", ["n01440764", "n01443537"][i % 2]))
            .collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let data = load_dir(&tree(&files)).unwrap();
        assert_eq!((data.train.len(), data.val.len()), (44, 4));
        assert_eq!((0..4).map(|i| data.val.label(i)).sum::<u32>(), 2);
        assert_eq!(data.class_names[0], "tench, Tinca tinca");
        let flat: Vec<&str> = files.iter().map(|file| &file["train/".len()..]).collect();
        assert_eq!(load_dir(&tree(&flat)).unwrap().train.len(), 44);
        let error = load_dir(&tree(&files[..4])).err().unwrap().to_string();
        assert!(error.contains("at least 12 for training"), "{error}");
    }

    #[test]
    fn trees_that_are_none_are_named() {
        let error = |files: &[&str], empty: &[&str]| {
            let dir = tree(files);
            empty.iter().for_each(|name| fs::create_dir_all(dir.path().join(name)).unwrap());
            load_dir(&dir).err().unwrap().to_string()
        };
        let said = error(&["train/a/0.png"], &["train/b"]);
        assert!(said.contains("train/b holds no"), "{said}");
        let said = error(&["train/a/0.png", "val/c/0.png"], &[]);
        assert!(said.contains("val/c: expected a class of the training images"), "{said}");
        let said = error(&[], &["train"]);
        assert!(said.contains("expected a directory for each class, found none"), "{said}");
        let said = load(Path::new("nowhere"), String::new()).err().unwrap().to_string();
        assert!(said.starts_with("cannot read nowhere"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_a_circle() {
        let dir = tree(&["train/a/0.png", "elsewhere/1.png", "val/a/0.png"]);
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(at("elsewhere"), at("train/b")).unwrap();
        assert_eq!(load_dir(&dir).unwrap().train.len(), 2);
        std::os::unix::fs::symlink(at("train/a"), at("train/a/again")).unwrap();
        let error = load_dir(&dir).err().unwrap().to_string();
        assert!(error.contains("in a circle"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_only_looks_like_an_image_is_found_when_it_is_read() {
        let dir = tree(&["train/a/0.png", "val/a/0.png"]);
        fs::create_dir(dir.path().join("train/a/directory.jpg")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("train/a/dangling.jpg")).unwrap();
        let data = load_dir(&dir).unwrap();
        assert_eq!(data.train.len(), 3);
        let errors: Vec<_> = (0..3).filter_map(|index| data.train.sample(index).err()).collect();
        assert_eq!(errors.len(), 2);
    }
}
