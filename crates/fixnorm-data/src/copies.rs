//! Copies of files in the cache directory, in a form that images can be read from: each made once, whole or not at all.
//! Not here: what is in them (`spill.rs`, `plain_tar.rs`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::index;
use crate::shard_file::ShardFile;

/// The place of a copy of `shard` as it is now. `form` is its directory in the cache.
pub(crate) fn place(cache: &Path, form: &str, shard: &ShardFile) -> Option<PathBuf> {
    Some(cache.join(form).join(index::name_of_version(shard)?))
}

/// Makes the copy at `path`: `write` is given a file to write, and `open` returns the copy if it is there. Copies of
/// the same file as it was before are removed.
///
/// # Errors
/// What `write` says, or a directory that cannot be written. Nothing of the copy is left then.
pub(crate) fn make<T, E: From<io::Error>>(
    cache: &Path,
    path: &Path,
    open: impl Fn() -> Option<T>,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<T, E> {
    let none = || io::Error::other("it cannot be read back");
    let (Some(dir), Some(own)) = (path.parent(), path.file_name().and_then(|own| own.to_str()))
    else {
        return Err(none().into());
    };
    fs::create_dir_all(dir)?;
    // Of several processes that start at once, one copies and the others wait.
    let lock = locked(&cache.join("locks"), own);
    if let Some(made) = open() {
        return Ok(made);
    }
    let temporary = index::temporary(path);
    let written = write(&temporary).and_then(|()| fs::rename(&temporary, path).map_err(E::from));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // Copies of the file as it was before are of no use.
    let of_shard = own.split('-').next();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let older = name.to_str().is_some_and(|name| {
            // One that was being written belongs to no process where this one has the lock.
            let written = name.ends_with(".tmp") && (lock.is_none() || !name.starts_with(own));
            name != own && name.split('-').next() == of_shard && !written
        });
        if older {
            let _ = fs::remove_file(entry.path());
        }
    }
    open().ok_or_else(|| none().into())
}

/// A lock that is held until it is dropped, or its process ends; none where the file system has no locks.
pub(crate) fn locked(dir: &Path, name: &str) -> Option<File> {
    fs::create_dir_all(dir).ok()?;
    let file = File::create(dir.join(name)).ok()?;
    file.lock().ok()?;
    Some(file)
}
