//! The planes of a JPEG file's components, and the colours that they make.
//! Not here: decoding (`sequential.rs`).
//!
//! Chroma is interpolated and colours are computed as in zune-jpeg: chroma at half the scale by weights of 3/4 and 1/4,
//! down and then across, rounded in between; colours in fixed point with 14 bits.

use crate::Image;
use crate::dispatch::vectorized;
use crate::image::Window;

/// A part of a component's pixels.
pub(super) struct Plane {
    pub(super) width: usize,
    height: usize,
    pub(super) pixels: Vec<u8>,
    /// Row and column of the first pixel in the whole plane.
    origin: [usize; 2],
    /// Pixels of the image for each of the plane, down and across: 1 or 2.
    spread: [usize; 2],
}

impl Plane {
    pub(super) fn new([height, width]: [usize; 2], origin: [usize; 2], spread: [usize; 2]) -> Self {
        Self { width, height, pixels: vec![0; height * width], origin, spread }
    }

    /// The columns of a row of the image.
    #[inline(always)]
    fn row<'a>(&'a self, y: usize, first: usize, scratch: &'a mut Scratch, len: usize) -> &'a [u8] {
        let line = |row: usize| &self.pixels[row * self.width..][..self.width];
        let own = y / self.spread[0] - self.origin[0];
        let near = line(own);
        if self.spread == [1, 1] {
            return &near[first - self.origin[1]..][..len];
        }
        let blended = if self.spread[0] == 2 {
            // The plane reaches a pixel further than the window, except at the image's edges.
            let far = if y.is_multiple_of(2) {
                own.saturating_sub(1)
            } else {
                (own + 1).min(self.height - 1)
            };
            let pairs = near.iter().zip(line(far));
            for (out, (&near, &far)) in scratch.down.iter_mut().zip(pairs) {
                *out = nearer(near, far);
            }
            &scratch.down[..self.width]
        } else {
            near
        };
        if self.spread[1] == 1 {
            return &blended[first - self.origin[1]..][..len];
        }
        spread_across(blended, &mut scratch.across[..2 * self.width]);
        &scratch.across[first - 2 * self.origin[1]..][..len]
    }
}

/// Lines of interpolated chroma.
struct Scratch {
    down: Vec<u8>,
    across: Vec<u8>,
}

impl Scratch {
    fn new(plane: &Plane) -> Self {
        Self { down: vec![0; plane.width], across: vec![0; 2 * plane.width] }
    }
}

#[inline(always)]
fn nearer(near: u8, far: u8) -> u8 {
    ((3 * u16::from(near) + u16::from(far) + 2) >> 2) as u8
}

#[inline(always)]
fn spread_across(line: &[u8], out: &mut [u8]) {
    let (Some(&first), Some(&last)) = (line.first(), line.last()) else { return };
    let end = out.len() - 1;
    (out[0], out[end]) = (first, last);
    let inner = out[1..end].as_chunks_mut::<2>().0;
    for (out, pair) in inner.iter_mut().zip(line.windows(2)) {
        *out = [nearer(pair[0], pair[1]), nearer(pair[1], pair[0])];
    }
}

/// The window of the image that planes make: one is grey, three are YCbCr.
pub(super) fn coloured(planes: &[Plane], [rows, columns]: Window) -> Image {
    let (height, width) = (rows.len(), columns.len());
    let channels = planes.len();
    let mut pixels = vec![0; height * width * channels];
    let mut scratch: Vec<Scratch> = planes.iter().map(Scratch::new).collect();
    vectorized(
        #[inline(always)]
        || {
            for (y, out) in rows.zip(pixels.chunks_exact_mut(width * channels)) {
                let mut lines = planes
                    .iter()
                    .zip(&mut scratch)
                    .map(|(plane, scratch)| plane.row(y, columns.start, scratch, width));
                match (lines.next(), lines.next(), lines.next()) {
                    (Some(luma), Some(blue), Some(red)) => to_rgb(luma, blue, red, out),
                    (Some(luma), ..) => out.copy_from_slice(luma),
                    _ => {}
                }
            }
        },
    );
    Image { height, width, channels, pixels }
}

/// Bits behind the point.
const PRECISION: u32 = 14;

#[inline(always)]
fn to_rgb(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    let chroma = blue.iter().zip(red);
    for ((&luma, (&blue, &red)), out) in luma.iter().zip(chroma).zip(out.as_chunks_mut::<3>().0) {
        let luma = (i32::from(luma) << PRECISION) + (1 << (PRECISION - 1)) - 1;
        let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
        *out = [22970 * red, -11700 * red - 5638 * blue, 29032 * blue]
            .map(|chroma| ((luma + chroma) >> PRECISION).clamp(0, 255) as u8);
    }
}
