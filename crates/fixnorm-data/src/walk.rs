//! Image files by their names, and those among the paths that a user names: files as they are, directories
//! walked.
//! Not here: the endings (`format.rs`), reading them (`decode.rs`), the tree of a data set (`folder.rs`).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::format::{ENDINGS, OTHER_ENDINGS};
use crate::names::is_junk;

/// Endings of files that lie beside images and that nobody takes for one.
const NO_IMAGES: [&str; 26] = [
    "txt", "csv", "tsv", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "md", "html", "htm",
    "toml", "ini", "cfg", "log", "lst", "db", "py", "ipynb", "sh", "mat", "npy", "npz", "pkl",
    "pdf",
];

/// Deeper than any tree that was meant; links can lead in a circle.
pub(crate) const DEEPEST: usize = 16;

/// The files named, and of each directory all images in it and below it, sorted by path. Links to directories
/// are followed, but not in a circle; hidden files and directories are left out.
///
/// # Errors
/// A directory that cannot be read or holds no image.
pub fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = vec![];
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        collect(path, &mut vec![], &mut files)?;
        if files.len() == before {
            return Err(DataError::NoImages { path: path.clone() });
        }
        files[before..].sort();
    }
    Ok(files)
}

/// Adds the image files in `dir`, which lies in the directories `above`, and below it.
fn collect(
    dir: &Path,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    let own = dir.canonicalize().map_err(DataError::read(dir))?;
    if above.contains(&own) {
        return Ok(());
    }
    above.push(own);
    for entry in fs::read_dir(dir).map_err(DataError::read(dir))? {
        let name = entry.map_err(DataError::read(dir))?.file_name();
        let path = dir.join(&name);
        if is_junk(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, above, files)?;
        } else if is_image(&path) && path.is_file() {
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// Refuses directories that are too deep in each other.
pub(crate) fn check_depth(dir: &Path, depth: usize) -> Result<(), DataError> {
    if depth > DEEPEST {
        let expected = format!("at most {DEEPEST} directories in each other");
        return Err(DataError::format(dir, expected, "more; a link may lead in a circle"));
    }
    Ok(())
}

/// The ending of a name in lower case, without its dot; empty where there is none.
pub(crate) fn ending(name: &OsStr) -> String {
    let ending = Path::new(name).extension().and_then(OsStr::to_str);
    ending.map(str::to_ascii_lowercase).unwrap_or_default()
}

pub(crate) fn is_image(path: &Path) -> bool {
    path.file_name().is_some_and(|name| ENDINGS.contains(&ending(name).as_str()))
}

/// Whether this is the ending of an image in a format that is not read.
pub(crate) fn is_other_image(ending: &str) -> bool {
    OTHER_ENDINGS.contains(&ending)
}

/// Whether a file of this ending beside images is worth a word.
pub(crate) fn may_be_image(ending: &str) -> bool {
    !NO_IMAGES.contains(&ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_walked_in_order_and_files_taken_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at(".git")).unwrap();
        for name in
            ["z.png", "a.JPG", "notes.txt", "b/deep/1.jpeg", "b/2.jfif", "._z.png", ".git/0.png"]
        {
            fs::write(at(name), "").unwrap();
        }
        let found = image_files(&[at("notes.txt"), dir.path().to_owned(), at("none")]).unwrap();
        let expected = ["notes.txt", "a.JPG", "b/2.jfif", "b/deep/1.jpeg", "z.png", "none"].map(at);
        assert_eq!(found, expected);
        let error = image_files(&[at("empty")]).unwrap_err();
        assert!(matches!(error, DataError::NoImages { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_directories_are_followed_but_not_in_a_circle() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("p")).unwrap();
        fs::create_dir_all(at("elsewhere")).unwrap();
        fs::write(at("p/a.png"), "").unwrap();
        fs::write(at("elsewhere/b.png"), "").unwrap();
        std::os::unix::fs::symlink("../elsewhere", at("p/more")).unwrap();
        assert_eq!(image_files(&[at("p")]).unwrap(), ["p/a.png", "p/more/b.png"].map(at));
        std::os::unix::fs::symlink("..", at("elsewhere/up")).unwrap();
        let found = image_files(&[at("p")]).unwrap();
        assert_eq!(found[..2], ["p/a.png", "p/more/b.png"].map(at));
    }
}
