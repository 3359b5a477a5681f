//! What stands for PostgreSQL in a build without it: URLs are refused, and nothing else can happen.

use std::fmt;
use std::time::Duration;

use super::{Claim, End, Epoch, Job, Store, StoreError, Study, TrialRow};

/// A study in a database, of which this build has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {}

/// A study in a database, of which this build has none.
#[derive(Debug)]
pub enum Postgres {}

impl fmt::Display for Address {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Address {
    /// Whether this is a database's URL rather than a file's name.
    pub fn is_url(text: &str) -> bool {
        text.starts_with("postgres://") || text.starts_with("postgresql://")
    }

    /// Refuses every URL.
    ///
    /// # Errors
    /// Always.
    pub fn parse(_url: &str) -> Result<Self, StoreError> {
        Err(StoreError::Url {
            shown: "postgres://…".to_owned(),
            message: "this program was built without PostgreSQL (cargo feature `postgres`)"
                .to_owned(),
        })
    }

    /// The study's name.
    pub fn study(&self) -> &str {
        match *self {}
    }

    pub(super) fn with_study(&self, _name: &str) -> Self {
        match *self {}
    }
}

#[expect(missing_docs, reason = "never called")]
impl Postgres {
    pub fn create_or_open(address: &Address, _study: &Study) -> Result<(Self, bool), StoreError> {
        match *address {}
    }

    pub fn open(address: &Address) -> Result<Self, StoreError> {
        match *address {}
    }

    pub fn open_read_only(address: &Address) -> Result<Self, StoreError> {
        match *address {}
    }

    pub fn probe(address: &Address) -> Result<(), StoreError> {
        match *address {}
    }

    pub fn exists(address: &Address) -> Result<bool, StoreError> {
        match *address {}
    }

    pub fn names(address: &Address) -> Result<Vec<String>, StoreError> {
        match *address {}
    }

    pub fn import(address: &Address, _: &Study, _: &[TrialRow]) -> Result<(), StoreError> {
        match *address {}
    }

    pub fn delete(address: &Address, _force: bool) -> Result<(), StoreError> {
        match *address {}
    }
}

impl Store for Postgres {
    fn study(&self) -> &Study {
        match *self {}
    }

    fn claim(&mut self, _worker: &str, _lease: Duration) -> Result<Claim, StoreError> {
        match *self {}
    }

    fn renew(&mut self, _: &Job, _: Duration, _: &[Epoch]) -> Result<bool, StoreError> {
        match *self {}
    }

    fn finish(&mut self, _job: &Job, _end: &End) -> Result<bool, StoreError> {
        match *self {}
    }

    fn release(&mut self, _job: &Job) -> Result<(), StoreError> {
        match *self {}
    }

    fn trials(&self) -> Result<Vec<TrialRow>, StoreError> {
        match *self {}
    }
}
