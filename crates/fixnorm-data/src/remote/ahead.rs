//! Ranges that are fetched before they are read, by threads that end when nothing is left to fetch.
//!
//! A range is asked for once, whoever wants it. What nobody has read is dropped when it would take more than 512 MiB.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ::bytes::Bytes;

use super::{CONNECTIONS, Object};
use crate::DataError;

/// The most bytes that are waited for or held.
const MOST_BYTES: u64 = 512 << 20;

/// The number of an object, first byte and end.
type Key = (usize, u64, u64);

#[derive(Debug)]
enum Piece {
    Waiting,
    Fetching,
    Here(Bytes),
}

#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    /// Woken when a range was fetched.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pieces: HashMap<Key, Piece>,
    /// Sum of the ranges in `pieces`.
    bytes: u64,
    queue: VecDeque<(Arc<Object>, Range<u64>)>,
    threads: usize,
}

impl State {
    fn insert(&mut self, key: Key, piece: Piece) {
        self.remove(&key);
        self.bytes += key.2 - key.1;
        self.pieces.insert(key, piece);
    }

    fn remove(&mut self, key: &Key) -> Option<Piece> {
        let piece = self.pieces.remove(key)?;
        self.bytes -= key.2 - key.1;
        Some(piece)
    }

    /// Whether there is room for more, after dropping what is here and was not read.
    fn has_room(&mut self, bytes: u64) -> bool {
        if self.bytes + bytes > MOST_BYTES {
            self.pieces.retain(|_, piece| !matches!(piece, Piece::Here(_)));
            self.bytes = self.pieces.keys().map(|(_, start, end)| end - start).sum();
        }
        self.bytes + bytes <= MOST_BYTES
    }
}

fn key(object: &Object, range: &Range<u64>) -> Key {
    (object.number, range.start, range.end)
}

impl Ahead {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a range in the background, unless it is under way.
    pub(super) fn fetch(self: &Arc<Self>, object: &Arc<Object>, range: Range<u64>) {
        let key = key(object, &range);
        let mut state = self.lock();
        if state.pieces.contains_key(&key) || !state.has_room(range.end - range.start) {
            return;
        }
        state.insert(key, Piece::Waiting);
        state.queue.push_back((object.clone(), range));
        if state.threads < CONNECTIONS {
            state.threads += 1;
            drop(state);
            let own = self.clone();
            std::thread::spawn(move || own.work());
        }
    }

    /// Fetches until nothing waits.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some((object, range)) = state.queue.pop_front() else {
                state.threads -= 1;
                return;
            };
            let key = key(&object, &range);
            // A reader may have been faster.
            if !matches!(state.pieces.get(&key), Some(Piece::Waiting)) {
                continue;
            }
            state.insert(key, Piece::Fetching);
            drop(state);
            let claim = Claim { ahead: self, key };
            // Its reader asks again and has the error.
            if let Ok((bytes, false)) = object.fetch(&range) {
                self.lock().insert(key, Piece::Here(bytes));
            }
            drop(claim);
        }
    }

    /// The bytes of a range: those that are here or under way, or else fetched now.
    pub(super) fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, DataError> {
        let key = key(object, &range);
        let mut state = self.lock();
        while let Some(Piece::Fetching) = state.pieces.get(&key) {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(Piece::Here(bytes)) = state.remove(&key) {
            return Ok(bytes);
        }
        state.insert(key, Piece::Fetching);
        drop(state);
        let _claim = Claim { ahead: self, key };
        object.fetch(&range).map(|(bytes, _)| bytes)
    }
}

/// A range that is being fetched; ends with it, also by a panic, so that nobody waits for ever.
struct Claim<'a> {
    ahead: &'a Ahead,
    key: Key,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.ahead.lock();
        if let Some(Piece::Fetching) = state.pieces.get(&self.key) {
            state.remove(&self.key);
        }
        drop(state);
        self.ahead.done.notify_all();
    }
}
