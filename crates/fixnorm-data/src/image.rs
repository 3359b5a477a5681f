//! One image in memory.
//! Not here: reading one from a file (`decode.rs`), sets of them (`source.rs`).

/// An image in memory, `[height, width, channels]` with the channel fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// `height · width · channels` values.
    pub pixels: Vec<u8>,
}
