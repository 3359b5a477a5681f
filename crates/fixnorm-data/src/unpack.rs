//! Unpacking a gzipped tar file from elsewhere, of which nothing is believed.
//!
//! Only plain files and directories come out, only below the one directory that is expected, and only so many
//! bytes; anything else is an error, and nothing is left behind. Not here: where it comes from (`fetch.rs`).

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use ::tar::{Archive, EntryType};
use flate2::bufread::MultiGzDecoder;

use crate::fetch::error::FetchError;

/// The most bytes and files that come out of one archive: CIFAR-10 has 184 million in 8.
const MOST_BYTES: u64 = 1 << 30;
const MOST_FILES: usize = 1 << 10;

/// Unpacks `archive` into `out`, where it becomes `directory`, whole or not at all.
///
/// # Errors
/// [`FetchError::Archive`]: links, paths that lead elsewhere, too much, or a file that is torn.
pub(crate) fn tar_gz(archive: &Path, out: &Path, directory: &str) -> Result<(), FetchError> {
    let temporary = out.join(format!(".{directory}.{}", std::process::id()));
    let _ = fs::remove_dir_all(&temporary);
    let target = out.join(directory);
    let unpacked = into(archive, &temporary, directory).and_then(|()| {
        let made = temporary.join(directory);
        fs::rename(&made, &target).map_err(FetchError::io("write", &target))
    });
    let _ = fs::remove_dir_all(&temporary);
    unpacked
}

fn into(archive: &Path, out: &Path, directory: &str) -> Result<(), FetchError> {
    let wrong = |message: String| FetchError::Archive { path: archive.to_owned(), message };
    let torn = |error: io::Error| wrong(format!("not a whole gzipped tar file: {error}"));
    let file = File::open(archive).map_err(FetchError::io("read", archive))?;
    fs::create_dir_all(out.join(directory)).map_err(FetchError::io("create", out))?;
    let mut left = MOST_BYTES;
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    for (number, entry) in archive.entries().map_err(torn)?.enumerate() {
        let mut entry = entry.map_err(torn)?;
        let path = entry.path().map_err(torn)?.into_owned();
        let inner = within(&path, directory)
            .ok_or_else(|| wrong(format!("`{}` is not in {directory}", path.display())))?;
        let target = out.join(inner);
        let create = FetchError::io("write", &target);
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&target).map_err(create)?,
            EntryType::Regular | EntryType::Continuous => {
                if number >= MOST_FILES || entry.size() > left {
                    return Err(wrong(format!(
                        "more than {MOST_FILES} files or {MOST_BYTES} bytes"
                    )));
                }
                left -= entry.size();
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent).map_err(FetchError::io("create", parent))?;
                }
                // `create_new`: no second entry of a name may go through what the first one made.
                let mut file = File::create_new(&target).map_err(create)?;
                let size = entry.size();
                let copied = io::copy(&mut entry.by_ref().take(size), &mut file).map_err(torn)?;
                if copied != size {
                    return Err(wrong(format!("`{}` is cut short", path.display())));
                }
                file.sync_all().map_err(FetchError::io("write", &target))?;
            }
            kind => {
                let path = path.display();
                return Err(wrong(format!("`{path}` is no plain file or directory ({kind:?})")));
            }
        }
    }
    Ok(())
}

/// The path, if it lies below `directory` by its words alone.
fn within(path: &Path, directory: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    clean.starts_with(directory).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tar::{Builder, Header};
    use flate2::Compression;
    use flate2::write::GzEncoder;

    /// An archive whose header's name is written as it is, which `tar` would refuse to do.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(vec![], Compression::fast()));
        for (name, kind, bytes) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            if *kind == EntryType::Symlink || *kind == EntryType::Link {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn unpack(bytes: &[u8]) -> (tempfile::TempDir, Result<(), FetchError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        fs::write(&path, bytes).unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let result = tar_gz(&path, &out, "set");
        (dir, result)
    }

    #[test]
    fn plain_files_come_out() {
        let entries = [
            ("set/", EntryType::Directory, &b""[..]),
            ("./set/a.bin", EntryType::Regular, b"abc"),
            ("set/deep/b.txt", EntryType::Regular, b""),
        ];
        let (dir, result) = unpack(&archive(&entries));
        result.unwrap();
        assert_eq!(fs::read(dir.path().join("out/set/a.bin")).unwrap(), b"abc");
        assert!(dir.path().join("out/set/deep/b.txt").exists());
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn nothing_leaves_its_directory() {
        for (name, kind, part) in [
            ("../evil", EntryType::Regular, "is not in set"),
            ("set/../../evil", EntryType::Regular, "is not in set"),
            ("/evil", EntryType::Regular, "is not in set"),
            ("elsewhere/a", EntryType::Regular, "is not in set"),
            ("set/link", EntryType::Symlink, "no plain file"),
            ("set/link", EntryType::Link, "no plain file"),
            ("set/fifo", EntryType::Fifo, "no plain file"),
        ] {
            let (dir, result) =
                unpack(&archive(&[("set/a", EntryType::Regular, b"1"), (name, kind, b"")]));
            let error = result.unwrap_err().to_string();
            assert!(error.contains("a.tar.gz") && error.contains(part), "{name}: {error}");
            assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0, "{name}");
            assert!(!dir.path().join("evil").exists());
        }
    }

    #[test]
    fn twice_the_same_name_and_torn_files_are_errors() {
        let twice = [("set/a", EntryType::Regular, &b"1"[..]), ("set/a", EntryType::Regular, b"2")];
        assert!(unpack(&archive(&twice)).1.is_err());
        let noise: Vec<u8> =
            (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = archive(&[("set/a", EntryType::Regular, &noise)]);
        let (dir, result) = unpack(&whole[..whole.len() / 2]);
        assert!(result.unwrap_err().to_string().contains("a.tar.gz"));
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    }

    #[test]
    fn bombs_are_refused() {
        let mut builder = Builder::new(GzEncoder::new(vec![], Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_path("set/bomb").unwrap();
        header.set_size(MOST_BYTES + 1);
        header.set_cksum();
        builder.append(&header, io::repeat(0).take(1 << 20)).unwrap_or_default();
        let bytes = builder.into_inner().unwrap().finish().unwrap();
        let error = unpack(&bytes).1.unwrap_err().to_string();
        assert!(error.contains("bytes"), "{error}");
    }
}
