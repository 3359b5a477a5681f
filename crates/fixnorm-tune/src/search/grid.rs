//! A full table, cell by cell.

use serde::{Deserialize, Serialize};

use super::{Ask, Searcher, Told};
use crate::space::Space;

/// Every cell once. The cells are those of the space's steps; an axis without steps has its two ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// The space to search, with a step on both axes.
    pub space: Space,
}

impl Searcher for Grid {
    fn ask(&self, history: &[Told]) -> Ask {
        let cells = self.space.lattice(f64::INFINITY);
        match cells.get(history.len()) {
            Some(&cell) => Ask::Try(cell),
            None => Ask::Done(format!("all {} cells are in the table", cells.len())),
        }
    }
}
