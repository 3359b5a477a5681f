//! Sequential JPEG files: the pixels of a window, at the file's own scale or reduced.
//!
//! 1. A reduced image is made of each block's low coefficients alone (`idct.rs`). Chroma that is sampled half as finely
//!    as luma gets the smaller reduction, so that nothing is interpolated.
//! 2. Blocks outside of the window are passed over, and what is coded behind it is not read at all. Between restart
//!    markers without a block of the window, nothing is read either.
//! 3. Anything unusual or damaged gives none: then another decoder decides whether it is an error.
//!
//! At the file's own scale, pixels are those of zune-jpeg to the bit.
//! Not here: the tables (`scan.rs`), from planes to colours (`planes.rs`).

use std::ops::Range;

use super::huffman::Bits;
use super::idct::inverse;
use super::planes::Plane;
use super::scan::{Component, Scan, ZIGZAG};
use crate::dispatch::vectorized;
use crate::image::{Part, Window};

/// Decodes the pixels of a window of an image of `size`, reduced to `1 / reduction` of its height and width: 1, 2, 4 or 8.
/// None for files that only other decoders read, or none.
pub(super) fn decode(
    bytes: &[u8],
    size: [usize; 2],
    window: &Window,
    reduction: usize,
) -> Option<Part> {
    let mut scan = Scan::read(bytes)?;
    if let [grey] = &mut scan.components[..] {
        // A scan of one component has its blocks one by one, whatever its sampling.
        grey.sampling = [1, 1];
    }
    let most = |side: usize| scan.components.iter().map(|component| component.sampling[side]).max();
    let most = [most(1)?, most(0)?];
    let layout = Layout::new(size, window, reduction, most);
    let mut planes: Vec<Plane> =
        scan.components.iter().map(|component| layout.plane(component)).collect();
    vectorized(
        #[inline(always)]
        || read_units(&scan, &layout, &mut planes),
    )?;
    let kept: Window = std::array::from_fn(|side| {
        window[side].start / reduction..window[side].end.div_ceil(reduction)
    });
    let origin = [kept[0].start, kept[1].start];
    let image = super::planes::coloured(&planes, kept);
    Some(Part { image, origin, reduction })
}

/// Where the units of a scan lie, and which are needed; rows first.
struct Layout {
    reduction: usize,
    /// The finest sampling, down and across.
    most: [usize; 2],
    /// Units of the whole image.
    count: [usize; 2],
    needed: Window,
}

impl Layout {
    fn new(size: [usize; 2], window: &Window, reduction: usize, most: [usize; 2]) -> Self {
        let unit = most.map(|most| 8 * most);
        let count = [0, 1].map(|side| size[side].div_ceil(unit[side]));
        let needed = std::array::from_fn(|side| {
            let (start, end) =
                (window[side].start / unit[side], window[side].end.div_ceil(unit[side]));
            // Chroma is interpolated from its neighbours.
            let around = usize::from(reduction == 1 && most[side] > 1);
            start.saturating_sub(around)..(end + around).min(count[side])
        });
        Self { reduction, most, count, needed }
    }

    /// Pixels a side of a component's block, down and across.
    fn block(&self, component: &Component) -> [usize; 2] {
        let [across, down] = component.sampling;
        let side = |most: usize, own: usize| (8 * most / own / self.reduction).min(8);
        [side(self.most[0], down), side(self.most[1], across)]
    }

    fn plane(&self, component: &Component) -> Plane {
        let [across, down] = component.sampling;
        let block = self.block(component);
        let unit = [block[0] * down, block[1] * across];
        let [rows, columns] = &self.needed;
        Plane::new(
            [rows.len() * unit[0], columns.len() * unit[1]],
            [rows.start * unit[0], columns.start * unit[1]],
            [0, 1].map(|side| 8 * self.most[side] / self.reduction / unit[side]),
        )
    }

    fn is_needed(&self, unit: usize) -> bool {
        let [rows, columns] = &self.needed;
        rows.contains(&(unit / self.count[1])) && columns.contains(&(unit % self.count[1]))
    }

    /// One past the last unit that is needed.
    fn end(&self) -> usize {
        (self.needed[0].end - 1) * self.count[1] + self.needed[1].end
    }
}

/// Reads the scan as far as it is needed.
#[inline(always)]
fn read_units(scan: &Scan, layout: &Layout, planes: &mut [Plane]) -> Option<()> {
    let units = layout.count[0] * layout.count[1];
    let interval = if scan.interval == 0 { units } else { scan.interval };
    if scan.coded.starts.len() != units.div_ceil(interval) + 1 {
        return None;
    }
    let components: Option<Vec<Blocks<'_>>> =
        scan.components.iter().map(|component| Blocks::new(component, scan, layout)).collect();
    let mut components = components?;
    let needed_end = layout.end();
    for (index, bounds) in scan.coded.starts.windows(2).enumerate() {
        let own = index * interval..units.min((index + 1) * interval);
        if own.start >= needed_end {
            break;
        }
        if !own.clone().any(|unit| layout.is_needed(unit)) {
            continue;
        }
        let mut bits = Bits::new(&scan.coded, bounds[0]);
        components.iter_mut().for_each(|component| component.prediction = 0);
        let end = own.end.min(needed_end);
        read_between(own.start..end, layout, &mut bits, &mut components, planes)?;
        let left = bits.left(bounds[1]);
        if left < 0 || (end == own.end && left >= 8) {
            return None;
        }
    }
    Some(())
}

#[inline(always)]
fn read_between(
    units: Range<usize>,
    layout: &Layout,
    bits: &mut Bits<'_>,
    components: &mut [Blocks<'_>],
    planes: &mut [Plane],
) -> Option<()> {
    let [rows, columns] = &layout.needed;
    let (mut y, mut x) = (units.start / layout.count[1], units.start % layout.count[1]);
    for _ in units {
        let place = (rows.contains(&y) && columns.contains(&x))
            .then(|| [y - rows.start, x - columns.start]);
        for (component, plane) in components.iter_mut().zip(planes.iter_mut()) {
            let [across, down] = component.sampling;
            for block in 0..across * down {
                match place {
                    Some([y, x]) => {
                        let at = [y * down + block / across, x * across + block % across];
                        component.read(bits, at, plane)?;
                    }
                    None => component.pass(bits)?,
                }
            }
        }
        x += 1;
        if x == layout.count[1] {
            (x, y) = (0, y + 1);
        }
    }
    Some(())
}

/// The blocks of a component, one after another.
struct Blocks<'a> {
    sampling: [usize; 2],
    quantization: &'a [i32; 64],
    dc: &'a super::huffman::DcTable,
    ac: &'a super::huffman::AcTable,
    /// The last block's first coefficient, before its quantization.
    prediction: i32,
    /// Pixels a side, down and across.
    size: [usize; 2],
    /// The last coefficient that is needed, in the order in which they are coded.
    last: u32,
    block: [i32; 64],
}

impl<'a> Blocks<'a> {
    fn new(component: &'a Component, scan: &'a Scan, layout: &Layout) -> Option<Self> {
        let size = layout.block(component);
        let low = |&at: &u8| usize::from(at) / 8 < size[0] && usize::from(at) % 8 < size[1];
        Some(Self {
            sampling: component.sampling,
            quantization: &component.quantization,
            dc: scan.dc[component.dc].as_ref()?,
            ac: scan.ac[component.ac].as_ref()?,
            prediction: 0,
            size,
            last: ZIGZAG.iter().rposition(low)? as u32,
            block: [0; 64],
        })
    }

    #[inline(always)]
    fn read(&mut self, bits: &mut Bits<'_>, [y, x]: [usize; 2], plane: &mut Plane) -> Option<()> {
        self.prediction = self.prediction.wrapping_add(self.dc.difference(bits)?);
        self.block[0] = self.prediction.wrapping_mul(self.quantization[0]);
        let more = self.ac.read(bits, self.quantization, self.last, &mut self.block)?;
        let [down, across] = self.size;
        let (stride, block) = (plane.width, &self.block);
        let out = &mut plane.pixels[y * down * stride + x * across..];
        match self.size {
            [8, 8] => inverse::<8, 8>(block, !more, out, stride),
            [4, 4] => inverse::<4, 4>(block, !more, out, stride),
            [2, 2] => inverse::<2, 2>(block, !more, out, stride),
            [1, 1] => inverse::<1, 1>(block, true, out, stride),
            [8, 4] => inverse::<8, 4>(block, !more, out, stride),
            [4, 8] => inverse::<4, 8>(block, !more, out, stride),
            [4, 2] => inverse::<4, 2>(block, !more, out, stride),
            [2, 4] => inverse::<2, 4>(block, !more, out, stride),
            [2, 1] => inverse::<2, 1>(block, !more, out, stride),
            [1, 2] => inverse::<1, 2>(block, !more, out, stride),
            _ => return None,
        }
        if more {
            self.block = [0; 64];
        }
        Some(())
    }

    #[inline(always)]
    fn pass(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.prediction = self.prediction.wrapping_add(self.dc.difference(bits)?);
        self.ac.pass(bits, 1)
    }
}
