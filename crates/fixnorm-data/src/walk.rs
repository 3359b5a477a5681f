//! Image files among the paths that a user names: files as they are, directories walked.
//! Not here: reading them (`decode.rs`).

use std::path::{Path, PathBuf};

use crate::DataError;

/// Endings of image files. A file named by itself is taken whatever its ending.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The files named, and of each directory all images in it and below it, sorted by path. Links to
/// directories are not followed: they can lead in a circle.
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
        collect(path, &mut files)?;
        if files.len() == before {
            return Err(DataError::NoImages { path: path.clone() });
        }
        files[before..].sort();
    }
    Ok(files)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let unreadable = |source| DataError::Read { path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            collect(&path, files)?;
        } else if is_image(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

pub(crate) fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn directories_are_walked_in_order_and_files_taken_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        for name in ["z.png", "a.JPG", "notes.txt", "b/deep/1.jpeg", "b/2.png"] {
            fs::write(at(name), "").unwrap();
        }
        let found = image_files(&[at("notes.txt"), dir.path().to_owned(), at("none")]).unwrap();
        let expected = ["notes.txt", "a.JPG", "b/2.png", "b/deep/1.jpeg", "z.png", "none"].map(at);
        assert_eq!(found, expected);
        let error = image_files(&[at("empty")]).unwrap_err();
        assert!(matches!(error, DataError::NoImages { .. }), "{error}");
    }
}
