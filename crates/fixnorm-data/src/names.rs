//! Names of files and classes: which files are nobody's data, how names that are not UTF-8 are shown, lists
//! of class names in text files.
//! Not here: names that mean a split (`split_names.rs`).

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

use crate::DataError;

/// Files and directories that systems and tools leave behind, besides hidden ones.
const LEFT_BEHIND: [&str; 11] = [
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "@eadir",
    "__pycache__",
    "#recycle",
];

/// Whether a file or directory is hidden (`.git`, `.DS_Store`, `._x.jpg` of macOS) or left behind by a system
/// or tool (`__MACOSX`, `Thumbs.db`): no images and no classes.
pub(crate) fn is_junk(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.starts_with(b".")
        || LEFT_BEHIND.iter().any(|junk| bytes.eq_ignore_ascii_case(junk.as_bytes()))
}

/// A name as text. Bytes that are not UTF-8 are escaped as `\xe9`, so that two names stay two.
pub fn text_of(name: &OsStr) -> String {
    text_of_bytes(name.as_encoded_bytes())
}

/// [`text_of`] for bytes.
pub(crate) fn text_of_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The class names in a text file, one a line. A byte order mark, Windows line ends, spaces around names and
/// blank lines are left out.
///
/// # Errors
/// A file that cannot be read, is not UTF-8, or has no name.
pub(crate) fn class_list(path: &Path) -> Result<Vec<String>, DataError> {
    DataError::check_regular(path)?;
    class_list_in(path, std::fs::read(path).map_err(DataError::read(path))?)
}

/// The same of the bytes of `path`.
pub(crate) fn class_list_in(path: &Path, bytes: Vec<u8>) -> Result<Vec<String>, DataError> {
    let text = String::from_utf8(bytes)
        .map_err(|_| DataError::format(path, "class names in UTF-8, one a line", "other bytes"))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let names: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(DataError::format(path, "class names, one a line", "none"));
    }
    Ok(names)
}

/// Whether a pattern names files behind HTTP or in an object store.
pub(crate) fn is_url(pattern: &Path) -> bool {
    let text = pattern.as_os_str().to_string_lossy();
    ["s3://", "http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// The first few of a list, and how many more there are.
pub(crate) fn first_few<T: AsRef<str>>(all: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = all.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match all.len().checked_sub(SHOWN).filter(|&more| more > 0) {
        Some(more) => format!("{}, … ({more} more)", shown.join(", ")),
        None => shown.join(", "),
    }
}

/// `count` with its noun: `1 image`, `2 images`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let ending = match (count, noun.ends_with("ss")) {
        (1, _) => "",
        (_, true) => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_those_of_tools_are_junk() {
        for name in [".git", "._a.jpg", ".DS_Store", "__MACOSX", "Thumbs.db", "THUMBS.DB", "@eaDir"]
        {
            assert!(is_junk(OsStr::new(name)), "{name}");
        }
        assert!(!is_junk(OsStr::new("a.jpg")) && !is_junk(OsStr::new("_cat")));
    }

    #[test]
    fn class_lists_are_read_as_editors_write_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            class_list(&path)
        };
        for text in ["cat\ndog", "\u{feff}cat\r\ndog\r\n\r\n", "\n cat \n\ndog\n\n", "cat\ndog\n"] {
            assert_eq!(read(text.as_bytes()).unwrap(), ["cat", "dog"], "{text:?}");
        }
        assert!(read(b"\n\n").unwrap_err().to_string().contains("found none"));
        assert!(read(b"\xff\xfec\0").unwrap_err().to_string().contains("in UTF-8"));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_stay_apart() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(text_of(OsStr::from_bytes(b"caf\xe9")), "caf\\xe9");
        assert_ne!(text_of_bytes(b"\xe9"), text_of_bytes(b"\xe8"));
        assert_eq!(text_of(OsStr::new("é")), "é");
    }

    #[test]
    fn lists_are_cut() {
        assert_eq!(first_few(&["a", "b"]), "a, b");
        assert_eq!(first_few(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e, … (2 more)");
        assert_eq!(
            (counted(1, "class"), counted(2, "class")),
            ("1 class".into(), "2 classes".into())
        );
    }
}
