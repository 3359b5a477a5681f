//! What can go wrong with a study's store.

use std::path::PathBuf;

use super::Place;

/// Failure of a store. Every message names the file or database, never a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such file, or one that cannot be opened.
    #[error("cannot open the study {place}: {message}")]
    Open {
        /// The study.
        place: Place,
        /// Why not.
        message: String,
    },
    /// A URL that names no database.
    #[error("--study {shown}: {message}; expected postgres://[USER@]HOST[:PORT]/DATABASE[/STUDY]")]
    Url {
        /// The URL without its password.
        shown: String,
        /// What is wrong with it.
        message: String,
    },
    /// A server that does not answer.
    #[error("the study {place}: no connection to the server for {seconds} s: {message}")]
    Unreachable {
        /// The study.
        place: Place,
        /// Time spent trying.
        seconds: u64,
        /// Message of the last try.
        message: String,
    },
    /// A file, or its directory, that cannot be written.
    #[error("the study {0} is read-only: make the file and its directory writable")]
    ReadOnly(Place),
    /// No space. What was committed before is kept.
    #[error(
        "no space left for the study {0}: nothing recorded so far is lost; free some and go on"
    )]
    Full(Place),
    /// Another program does not let go of it.
    #[error(
        "the study {place} has been locked by another program for {seconds} s; close what has it open (a database browser?)"
    )]
    Locked {
        /// The study.
        place: Place,
        /// Time spent waiting.
        seconds: u64,
    },
    /// Another program's file.
    #[error("{place} is not a study of fixnorm: {reason}")]
    NotAStudy {
        /// The file.
        place: Place,
        /// A description of the file found.
        reason: String,
    },
    /// A file without a study, as another process makes it just before it fills it; a database that has none of this
    /// name.
    #[error("the study {0} is empty")]
    Empty(Place),
    /// A study where a new one was to be.
    #[error("the study {0} exists already")]
    Exists(Place),
    /// A study that a worker still has a job of.
    #[error("{workers} worker(s) have a job of the study {place}; end them first, or use --force")]
    InUse {
        /// The study.
        place: Place,
        /// Number of jobs whose lease has not run out.
        workers: usize,
    },
    /// A torn or truncated file.
    #[error(
        "the study {place} is damaged: {message}; go on from a copy, or export what `sqlite3 .recover` finds"
    )]
    Damaged {
        /// The study.
        place: Place,
        /// Result of the check.
        message: String,
    },
    /// Made by a later version.
    #[error(
        "the study {place} has schema {found}, this version of fixnorm knows {known}: use the version that made it"
    )]
    Newer {
        /// The study.
        place: Place,
        /// Its schema.
        found: i64,
        /// The latest one known.
        known: i64,
    },
    /// A study of something else.
    #[error(
        "the study {place} was started with another {what}: it has {old}, this is {new}; go on without changes, or name another one with --study"
    )]
    Other {
        /// The study.
        place: Place,
        /// The part that differs.
        what: &'static str,
        /// As saved.
        old: String,
        /// As asked for.
        new: String,
    },
    /// Anything else.
    #[error("the study {place}: {message}")]
    Sql {
        /// The study.
        place: Place,
        /// Message of the database.
        message: String,
    },
    /// An export that cannot be written.
    #[error("cannot write {}: {message}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// Why not.
        message: String,
    },
}

impl StoreError {
    /// Whether the user can mend it on the command line.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Other { .. } | Self::Url { .. })
    }
}
