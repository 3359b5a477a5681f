//! Where a study is, and what can be done with it there: a file, or a name in a database.

use std::fmt;
use std::path::{Path, PathBuf};

use super::postgres::{Address, Postgres};
use super::{Sqlite, Store, StoreError, Study, TrialRow};

/// Where a study is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database and the study's name in it.
    Database(Address),
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Place::File(path.to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Database(address) => address.fmt(f),
        }
    }
}

impl Place {
    /// The place that a user names: a URL that starts with `postgres://` or `postgresql://`, anything else is a file.
    ///
    /// # Errors
    /// A URL that names no database.
    pub fn named(name: &Path) -> Result<Self, StoreError> {
        match name.to_str() {
            Some(text) if Address::is_url(text) => Ok(Place::Database(Address::parse(text)?)),
            _ => Ok(Place::from(name)),
        }
    }

    /// Whether something is there, perhaps no study yet.
    ///
    /// # Errors
    /// A server that cannot be reached.
    pub fn exists(&self) -> Result<bool, StoreError> {
        match self {
            Place::File(path) => Ok(path.exists()),
            Place::Database(address) => Postgres::exists(address),
        }
    }

    /// Opens the study, or creates it from `study`. An existing one must have the same plan, search and seeds; its
    /// number of trials becomes the one of `study`. True if it is new. Any number of processes may call this at once.
    ///
    /// # Errors
    /// A file that is damaged, of another program, version or study, or that cannot be written; a server that cannot
    /// be reached or that refuses.
    pub fn create_or_open(&self, study: &Study) -> Result<(Box<dyn Store>, bool), StoreError> {
        Ok(match self {
            Place::File(path) => {
                let (store, is_new) = Sqlite::create_or_open(path, study)?;
                (Box::new(store), is_new)
            }
            Place::Database(address) => {
                let (store, is_new) = Postgres::create_or_open(address, study)?;
                (Box::new(store), is_new)
            }
        })
    }

    /// Opens an existing study to work on it.
    ///
    /// # Errors
    /// As [`create_or_open`](Self::create_or_open), or no study there.
    pub fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Place::File(path) => Box::new(Sqlite::open(path)?),
            Place::Database(address) => Box::new(Postgres::open(address)?),
        })
    }

    /// Opens an existing study to look at it. Nothing is written, so a read-only file will do.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the missing permission to write.
    pub fn open_read_only(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Place::File(path) => Box::new(Sqlite::open_read_only(path)?),
            Place::Database(address) => Box::new(Postgres::open_read_only(address)?),
        })
    }

    /// Checks that [`create_or_open`](Self::create_or_open) will find a study or a place for one, before anything
    /// expensive is done for it. Missing directories and tables are created; the study is not.
    ///
    /// # Errors
    /// A place that cannot be written, of another program or of a later version.
    pub fn probe(&self) -> Result<(), StoreError> {
        match self {
            Place::File(path) => Sqlite::probe(path),
            Place::Database(address) => Postgres::probe(address),
        }
    }

    /// The studies in the same database, by name; of a file, itself.
    ///
    /// # Errors
    /// A server that cannot be reached or that refuses.
    pub fn all(&self) -> Result<Vec<Place>, StoreError> {
        match self {
            Place::File(_) => Ok(vec![self.clone()]),
            Place::Database(address) => {
                let names = Postgres::names(address)?.into_iter();
                Ok(names.map(|name| Place::Database(address.with_study(&name))).collect())
            }
        }
    }

    /// Writes a study with all its trials to a place that has none. Jobs that run wait there.
    ///
    /// # Errors
    /// A study there already, a place that cannot be written.
    pub fn import(&self, study: &Study, trials: &[TrialRow]) -> Result<(), StoreError> {
        match self {
            Place::File(path) => Sqlite::import(path, study, trials),
            Place::Database(address) => Postgres::import(address, study, trials),
        }
    }

    /// Removes the study. Run directories stay.
    ///
    /// # Errors
    /// No study there; one that workers are at work on, unless `force`d.
    pub fn delete(&self, force: bool) -> Result<(), StoreError> {
        match self {
            Place::File(path) => Sqlite::delete(path, force),
            Place::Database(address) => Postgres::delete(address, force),
        }
    }

    /// Where run directories go unless the user says: beside the file, or under `runs/` by the study's name.
    pub fn runs(&self) -> PathBuf {
        match self {
            Place::File(path) => {
                let mut runs = path.as_os_str().to_owned();
                runs.push(".runs");
                PathBuf::from(runs)
            }
            Place::Database(address) => Path::new("runs").join(format!("{}.runs", address.study())),
        }
    }
}
