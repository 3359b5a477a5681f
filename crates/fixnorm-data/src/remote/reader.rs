//! A remote file in order, with blocks fetched ahead, as what builds an index reads it.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use ::bytes::Bytes;

use super::{BLOCK, Object};

/// Blocks fetched ahead of the one that is read.
const AHEAD: u64 = 4;

/// A place in a file.
#[derive(Debug)]
pub(crate) struct Reader {
    object: Arc<Object>,
    position: u64,
    /// The last block read, and its place.
    block: (Range<u64>, Bytes),
    /// Whether what follows is wanted too.
    in_order: bool,
}

impl Reader {
    pub(crate) fn new(object: Arc<Object>, position: u64, in_order: bool) -> Self {
        Self { object, position, block: (0..0, Bytes::new()), in_order }
    }

    /// The bytes from `position` on that are at hand.
    fn at_hand(&mut self) -> io::Result<&[u8]> {
        if !self.block.0.contains(&self.position) {
            let rest = self.position..self.object.size();
            let Some(block) = self.object.blocks(&rest).next() else { return Ok(&[]) };
            if self.in_order {
                let next = block.end..(block.end + AHEAD * BLOCK).min(self.object.size());
                for block in self.object.blocks(&next) {
                    self.object.prefetch(block.start, block.end - block.start);
                }
            }
            self.block = (block.clone(), self.object.piece(block)?);
        }
        Ok(&self.block.1[(self.position - self.block.0.start) as usize..])
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.at_hand()?.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.object.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
