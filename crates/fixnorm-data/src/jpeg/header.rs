//! The segments of a JPEG file up to its first scan: sizes, sampling, colours, and what is not decoded.
//! Not here: pixels (`jpeg.rs`).

use std::borrow::Cow;
use std::ops::Range;

/// A frame's component.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Component {
    id: u8,
    /// Horizontal and vertical sampling factors.
    sampling: [u8; 2],
}

/// The transform that a file's colours went through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Colours {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// The headers of a file.
#[derive(Debug)]
pub(super) struct Header {
    /// Height and width.
    pub(super) size: [usize; 2],
    pub(super) colours: Colours,
    /// Whether every decoder takes the colours for the same.
    plain_colours: bool,
    progressive: bool,
    components: Vec<Component>,
    /// Components of the first scan.
    in_scan: usize,
    /// Position of the height in the file.
    height_at: usize,
    /// Bytes between segments that belong to none.
    extra: Vec<Range<usize>>,
}

/// The marker of a scan.
pub(super) const SCAN: u8 = 0xda;

impl Header {
    /// Reads the segments of a file up to its first scan.
    ///
    /// # Errors
    /// The reason why the file is not decoded: it is torn, contradictory, or of a kind that is not read.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let (mut frame, mut extra) = (None, vec![]);
        let (mut jfif, mut adobe) = (false, None);
        // The file starts with a marker of its own.
        let mut at = 2;
        loop {
            let start = at;
            let marker = next_marker(bytes, &mut at).ok_or("it ends before its first scan")?;
            // Any number of 0xff may stand before a marker.
            if bytes[start..at - 2].iter().any(|&byte| byte != 0xff) {
                extra.push(start..at - 2);
            }
            if matches!(marker, 0x01 | 0xd0..=0xd7) {
                extra.push(at - 2..at);
                continue;
            }
            if matches!(marker, 0xd8 | 0xd9) {
                return Err("its segments are out of order".to_owned());
            }
            let length = number(bytes, at).filter(|&length| length >= 2);
            let segment = length.and_then(|length| bytes.get(at + 2..at + length));
            let segment = segment.ok_or("it ends within its headers")?;
            match marker {
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    if frame.is_some() {
                        return Err("it has two frame headers".to_owned());
                    }
                    frame = Some(Frame::read(marker, segment, at + 3)?);
                }
                0xc4 => check_huffman(segment)?,
                0xe0 if segment.starts_with(b"JFIF\0") && segment.len() >= 14 => jfif = true,
                0xee if segment.starts_with(b"Adobe") && segment.len() >= 12 => {
                    adobe = Some(segment[11]);
                }
                SCAN => {
                    let Frame { size, progressive, components, height_at } =
                        frame.ok_or("it has no frame header before its first scan")?;
                    let in_scan =
                        usize::from(*segment.first().ok_or("it has an empty scan header")?);
                    let colours = colours(&components, jfif, adobe)?;
                    return Ok(Self {
                        size,
                        colours,
                        plain_colours: matches!(
                            (colours, adobe),
                            (Colours::Grey, _)
                                | (Colours::YCbCr, None | Some(1))
                                | (Colours::Cmyk, None | Some(0))
                                | (Colours::Ycck, Some(2))
                        ) && !components
                            .iter()
                            .map(|component| component.id)
                            .eq(*b"RGB"),
                        progressive,
                        components,
                        in_scan,
                        height_at,
                        extra,
                    });
                }
                _ => {}
            }
            at += 2 + segment.len();
        }
    }

    /// Whether this is one of the usual kinds, which the fast decoder gets right: luma sampled at least as finely
    /// as chroma, each by 1 or 2, and sequential only with all components in one scan.
    pub(super) fn is_usual(&self) -> bool {
        let interleaved = self.in_scan == self.components.len();
        let sampling: Vec<[u8; 2]> =
            self.components.iter().map(|component| component.sampling).collect();
        let usual = matches!(
            (self.colours, &sampling[..]),
            (Colours::Grey, [[1 | 2, 1 | 2]])
                | (Colours::YCbCr, [[1 | 2, 1 | 2], [1, 1], [1, 1]])
                | (Colours::Cmyk | Colours::Ycck, [[1, 1], [1, 1], [1, 1], [1, 1]])
        );
        usual && interleaved && self.plain_colours
    }

    /// Whether `sequential.rs` decodes this one of the usual kinds.
    pub(super) fn is_sequential(&self) -> bool {
        !self.progressive && matches!(self.colours, Colours::Grey | Colours::YCbCr)
    }

    /// Checks that one of the decoders gets this file right.
    ///
    /// # Errors
    /// The reason why none does: between 1 and the largest sampling factor lies another one, and blocks do not come
    /// all together. `jpeg-decoder` 0.3.2 then counts blocks wrongly.
    pub(super) fn check_sampling(&self) -> Result<(), String> {
        let interleaved = self.in_scan == self.components.len() && !self.progressive;
        let among = |side: usize| {
            let factors = self.components.iter().map(move |component| component.sampling[side]);
            let most = factors.clone().max().unwrap_or(1);
            factors.clone().any(|factor| factor != 1 && factor != most)
        };
        if interleaved || !(among(0) || among(1)) {
            return Ok(());
        }
        let factors = self.components.iter().map(|component| {
            let [across, down] = component.sampling;
            format!("{across}x{down}")
        });
        let factors = factors.collect::<Vec<_>>().join(", ");
        Err(format!("its sampling factors {factors} are not read in a file of several scans"))
    }

    /// The file without bytes that belong to no segment, which other decoders skip, and with fewer rows if no row
    /// from `end` on is needed. What is coded behind them is then not decoded.
    pub(super) fn tidied<'a>(&self, end: usize, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut file = Cow::Borrowed(bytes);
        if let Some(height) = self.height_down_to(end) {
            let height = (height as u16).to_be_bytes();
            file.to_mut()[self.height_at..self.height_at + 2].copy_from_slice(&height);
        }
        for range in self.extra.iter().rev() {
            file.to_mut().drain(range.clone());
        }
        file
    }

    /// A height that ends a unit behind row `end`, since the interpolation of colours needs pixels of the next unit.
    fn height_down_to(&self, end: usize) -> Option<usize> {
        let rows = self.components.iter().map(|component| component.sampling[1]).max()?;
        let unit = 8 * usize::from(rows);
        let height = (end.div_ceil(unit) + 1) * unit;
        (!self.progressive && self.in_scan == self.components.len() && height < self.size[0])
            .then_some(height)
    }
}

/// Whether the file lacks the marker that ends one. A decoder would make up what is missing.
pub(super) fn ends_early(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        if marker == SCAN {
            // Nearly always it is at the end.
            return !bytes[at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]);
        }
        at += number(bytes, at).unwrap_or(0);
    }
    true
}

struct Frame {
    size: [usize; 2],
    progressive: bool,
    components: Vec<Component>,
    height_at: usize,
}

impl Frame {
    /// Reads a frame header; `height_at` is the position of its height in the file.
    fn read(marker: u8, segment: &[u8], height_at: usize) -> Result<Self, String> {
        let [precision, h0, h1, w0, w1, count, components @ ..] = segment else {
            return Err("its frame header is too short".to_owned());
        };
        let kind = match marker {
            0xc0..=0xc2 => None,
            0xc3 => Some("losslessly coded"),
            0xc9..=0xcb | 0xcd..=0xcf => Some("arithmetically coded"),
            _ => Some("hierarchically coded"),
        };
        if let Some(kind) = kind {
            return Err(format!("it is {kind} (SOF{}), which is not read", marker - 0xc0));
        }
        if *precision != 8 {
            return Err(format!("it has {precision} bits a value; 8 are read"));
        }
        let (components, rest) = components.as_chunks::<3>();
        if components.len() != usize::from(*count) || !rest.is_empty() {
            return Err("its frame header has another length than it says".to_owned());
        }
        let components = components.iter().map(|&[id, sampling, _]| {
            let sampling = [sampling >> 4, sampling & 15];
            if !sampling.iter().all(|factor| (1..=4).contains(factor)) {
                return Err(format!("its sampling factors are {sampling:?}, expected 1 to 4"));
            }
            Ok(Component { id, sampling })
        });
        let size = [[*h0, *h1], [*w0, *w1]].map(|two| usize::from(u16::from_be_bytes(two)));
        let components = components.collect::<Result<_, _>>()?;
        Ok(Self { size, progressive: marker == 0xc2, components, height_at })
    }
}

/// Checks a segment of Huffman tables for what libjpeg demands of them and the decoders do not.
fn check_huffman(mut tables: &[u8]) -> Result<(), String> {
    let damaged = || "its Huffman tables are damaged".to_owned();
    while let [class, rest @ ..] = tables {
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
        let count = counts.iter().copied().map(usize::from).sum();
        let (symbols, rest) = rest.split_at_checked(count).ok_or_else(damaged)?;
        // In a table for the first coefficient, symbols are numbers of bits.
        if class >> 4 == 0 && symbols.iter().any(|&symbol| symbol > 15) {
            return Err(damaged());
        }
        tables = rest;
    }
    Ok(())
}

/// As libjpeg guesses: JFIF means YCbCr, else Adobe's marker says it, else the components' names.
fn colours(components: &[Component], jfif: bool, adobe: Option<u8>) -> Result<Colours, String> {
    let ids: Vec<u8> = components.iter().map(|component| component.id).collect();
    match (&ids[..], adobe) {
        ([_], _) => Ok(Colours::Grey),
        ([_, _, _], _) if jfif => Ok(Colours::YCbCr),
        ([_, _, _], Some(0)) => Ok(Colours::Rgb),
        (b"RGB", None) => Ok(Colours::Rgb),
        ([_, _, _], _) => Ok(Colours::YCbCr),
        ([_, _, _, _], Some(2)) => Ok(Colours::Ycck),
        ([_, _, _, _], _) => Ok(Colours::Cmyk),
        _ => Err(format!("it has {} components; 1, 3 or 4 are read", ids.len())),
    }
}

/// The next marker from `at` on, and `at` moved behind it. Like libjpeg, passes over bytes that are none.
pub(super) fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        match bytes.get(*at..*at + 2)? {
            [0xff, marker] if !matches!(marker, 0 | 0xff) => {
                *at += 2;
                return Some(*marker);
            }
            _ => *at += 1,
        }
    }
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([two[0], two[1]])))
}
