//! The one scan of a sequential JPEG file: its components with their tables, and its coded bytes.
//! Not here: which files are decoded by it (`header.rs`, `reduced.rs`), the codes (`huffman.rs`).

use super::header::{SCAN, next_marker, number};
use super::huffman::{AcTable, DcTable};

/// Positions of coefficients in the order in which they are coded.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A component of the scan.
pub(super) struct Component {
    /// Horizontal and vertical sampling factors.
    pub(super) sampling: [usize; 2],
    /// In the order in which coefficients are coded.
    pub(super) quantization: [i32; 64],
    /// Indices into the scan's tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// The scan of a file.
pub(super) struct Scan {
    pub(super) components: Vec<Component>,
    pub(super) dc: [Option<DcTable>; 4],
    pub(super) ac: [Option<AcTable>; 4],
    /// Units between restart markers; 0 for none.
    pub(super) interval: usize,
    pub(super) coded: Coded,
}

impl Scan {
    /// Reads the tables of a file whose segments were checked. None where anything is unusual.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut quantization, mut frame, mut interval) = ([None; 4], None, 0);
        let (mut dc, mut ac) = ([const { None }; 4], [const { None }; 4]);
        let mut at = 2;
        loop {
            let marker = next_marker(bytes, &mut at)?;
            let segment = bytes.get(at + 2..at + number(bytes, at)?)?;
            match marker {
                0xc0 | 0xc1 => frame = Some(segment),
                0xc4 => read_huffman(segment, &mut dc, &mut ac)?,
                0xdb => read_quantization(segment, &mut quantization)?,
                0xdd => interval = number(segment, 0)?,
                SCAN => {
                    let components = components(frame?, segment, &quantization)?;
                    let known = |component: &Component| {
                        dc[component.dc].is_some() && ac[component.ac].is_some()
                    };
                    let coded = Coded::read(bytes.get(at + 2 + segment.len()..)?)?;
                    return components.iter().all(known).then_some(Self {
                        components,
                        dc,
                        ac,
                        interval,
                        coded,
                    });
                }
                _ => {}
            }
            at += 2 + segment.len();
        }
    }
}

fn read_quantization(mut segment: &[u8], tables: &mut [Option<[i32; 64]>; 4]) -> Option<()> {
    while let [kind, rest @ ..] = segment {
        let table = tables.get_mut(usize::from(kind & 15))?;
        let (values, rest) = match kind >> 4 {
            0 => {
                let (values, rest) = rest.split_first_chunk::<64>()?;
                (values.map(i32::from), rest)
            }
            1 => {
                let (values, rest) = rest.split_first_chunk::<128>()?;
                let value = |index: usize| {
                    i32::from(u16::from_be_bytes([values[2 * index], values[2 * index + 1]]))
                };
                (std::array::from_fn(value), rest)
            }
            _ => return None,
        };
        *table = Some(values);
        segment = rest;
    }
    Some(())
}

fn read_huffman(
    mut segment: &[u8],
    dc: &mut [Option<DcTable>; 4],
    ac: &mut [Option<AcTable>; 4],
) -> Option<()> {
    while let [kind, rest @ ..] = segment {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let count = counts.iter().copied().map(usize::from).sum();
        let (symbols, rest) = rest.split_at_checked(count)?;
        let which = usize::from(kind & 15);
        match kind >> 4 {
            0 => *dc.get_mut(which)? = Some(DcTable::new(counts, symbols)?),
            1 => *ac.get_mut(which)? = Some(AcTable::new(counts, symbols)?),
            _ => return None,
        }
        segment = rest;
    }
    Some(())
}

/// The components of a scan that has all of the frame's, in the frame's order, and all coefficients.
fn components(
    frame: &[u8],
    scan: &[u8],
    quantization: &[Option<[i32; 64]>; 4],
) -> Option<Vec<Component>> {
    let (frame, _) = frame.get(6..)?.as_chunks::<3>();
    let [count, scan @ ..] = scan else { return None };
    let (scan, ends) = scan.split_at_checked(2 * usize::from(*count))?;
    let (scan, _) = scan.as_chunks::<2>();
    if scan.len() != frame.len() || ends != [0, 63, 0] {
        return None;
    }
    let component = |(&[id, sampling, table], &[in_scan, tables]): (&[u8; 3], &[u8; 2])| {
        let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
        let sampling = [usize::from(sampling >> 4), usize::from(sampling & 15)];
        let quantization = (*quantization.get(usize::from(table))?)?;
        (id == in_scan && dc < 4 && ac < 4).then_some(Component { sampling, quantization, dc, ac })
    };
    frame.iter().zip(scan).map(component).collect()
}

/// The coded bytes of a scan without what is stuffed in between.
pub(super) struct Coded {
    /// Followed by [`Coded::PADDING`] zeros.
    pub(super) bytes: Vec<u8>,
    /// Where the code starts anew, and where it ends.
    pub(super) starts: Vec<usize>,
}

impl Coded {
    /// Zeros behind the bytes, so that as many can be read at once.
    pub(super) const PADDING: usize = 8;

    /// Reads up to the file's end marker. None where restart markers are out of order, or another marker comes first.
    fn read(mut coded: &[u8]) -> Option<Self> {
        let mut bytes = Vec::with_capacity(coded.len() + Self::PADDING);
        let mut starts = vec![0];
        loop {
            let at = memchr::memchr(0xff, coded)?;
            bytes.extend_from_slice(&coded[..at]);
            match *coded.get(at + 1)? {
                0 => bytes.push(0xff),
                // Any number of 0xff may stand before a marker.
                0xff => {
                    coded = &coded[at + 1..];
                    continue;
                }
                marker @ 0xd0..=0xd7 => {
                    if usize::from(marker & 7) != (starts.len() - 1) % 8 {
                        return None;
                    }
                    starts.push(bytes.len());
                }
                0xd9 => break,
                _ => return None,
            }
            coded = &coded[at + 2..];
        }
        starts.push(bytes.len());
        bytes.extend_from_slice(&[0; Self::PADDING]);
        Some(Self { bytes, starts })
    }
}
