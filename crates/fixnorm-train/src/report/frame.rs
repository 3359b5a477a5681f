//! Sizes of a drawing, once for screens and paper and once for phones.

/// Width, height and margins of a drawing, in units that are about a pixel where it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) width: f64,
    /// Without a legend.
    pub(super) height: f64,
    /// For the labels of the y axis.
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    /// For the names of rows, where there are rows instead of a y axis.
    pub(super) names: f64,
    /// Points of a curve that are drawn at most.
    pub(super) points: usize,
}

impl Frame {
    /// For screens, paper and files.
    pub(super) const WIDE: Self = Self {
        width: 720.0,
        height: 310.0,
        left: 72.0,
        right: 22.0,
        top: 12.0,
        bottom: 48.0,
        names: 220.0,
        points: 320,
    };

    /// For phones, where a drawing of the other size would have letters too small to read.
    pub(super) const NARROW: Self = Self {
        width: 350.0,
        height: 260.0,
        left: 62.0,
        right: 16.0,
        top: 10.0,
        bottom: 46.0,
        names: 120.0,
        points: 80,
    };

    /// Width of a character that few are wider than on average.
    pub(super) const CHARACTER: f64 = 7.4;

    /// Characters that fit into `width`.
    pub(super) fn characters(width: f64) -> usize {
        (width / Self::CHARACTER).floor().max(4.0) as usize
    }
}
