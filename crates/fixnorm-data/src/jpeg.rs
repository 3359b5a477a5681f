//! JPEG files, by the decoder `zune-jpeg`, of which no more is decoded than down to a window's last row.
//! Not here: other formats (`decode.rs`).

use std::borrow::Cow;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::Image;
use crate::decode::{Part, Window, check_size};

/// See [`crate::decode::decode_window`].
pub(crate) fn decode_window(
    bytes: &[u8],
    choose: impl FnOnce([usize; 2]) -> Window,
) -> Result<Part, String> {
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(true);
    // Whatever the window: which images are bad must not depend on it.
    if ends_early(bytes) {
        return Err("it ends before its last pixel".to_owned());
    }
    let mut choose = Some(choose);
    let mut file = Cow::Borrowed(bytes);
    if let Some(frame) = Frame::find(bytes) {
        check_size(frame.size)?;
        if let Some(choose) = choose.take() {
            let [rows, _] = choose(frame.size);
            file = frame.down_to(rows.end, bytes);
        }
    }
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&file[..]), options);
    decoder.decode_headers().map_err(|error| format!("{error:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    check_size([height, width])?;
    if let Some(choose) = choose {
        choose([height, width]);
    }
    let colours = decoder.input_colorspace().ok_or("it has no colours")?;
    let (colours, channels) = match colours {
        ColorSpace::Luma => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(|error| format!("{error:?}"))?;
    Ok(Part::from(Image { height, width, channels, pixels }))
}

/// The markers of a file and where each stands, down to that of its first scan. A header may hold a whole JPEG file,
/// which is passed over.
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Markers<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        // Behind that of the file's start.
        Self { bytes, at: 2 }
    }
}

impl Iterator for Markers<'_> {
    type Item = (u8, usize);

    fn next(&mut self) -> Option<(u8, usize)> {
        // Any number of these may stand before a marker.
        while self.bytes.get(self.at..self.at + 2)? == [0xff, 0xff] {
            self.at += 1;
        }
        let at = self.at;
        let &[0xff, marker] = self.bytes.get(at..at + 2)? else { return None };
        let length = number(self.bytes, at + 2);
        self.at = match (marker, length) {
            (SCAN, _) | (_, None) => self.bytes.len(),
            (_, Some(length)) => at + 2 + length,
        };
        Some((marker, at))
    }
}

/// The marker of a scan.
const SCAN: u8 = 0xda;

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([two[0], two[1]])))
}

/// Whether the file lacks the marker that ends one. The decoder would make up what is missing.
fn ends_early(bytes: &[u8]) -> bool {
    let scan = Markers::of(bytes).find(|(marker, _)| *marker == SCAN);
    // Without a scan the decoder will say what is wrong.
    scan.is_some_and(|(_, at)| !bytes[at + 2..].windows(2).any(|pair| pair == [0xff, 0xd9]))
}

/// The header of a file whose rows come one after another: sequential, all its components in one scan.
struct Frame {
    size: [usize; 2],
    /// Where in the file the height is.
    at: usize,
    /// Rows that are coded together.
    unit: usize,
}

impl Frame {
    /// That of a file, unless it is of another kind or torn before its first scan.
    fn find(bytes: &[u8]) -> Option<Self> {
        let (mut frame, mut components) = (None, 0);
        for (marker, at) in Markers::of(bytes) {
            match marker {
                0xc0 | 0xc1 => {
                    let size = [number(bytes, at + 5)?, number(bytes, at + 7)?];
                    components = usize::from(*bytes.get(at + 9)?);
                    let factors = (0..components).map(|i| Some(bytes.get(at + 11 + 3 * i)? & 15));
                    let most = factors.collect::<Option<Vec<u8>>>()?.into_iter().max()?;
                    frame = Some(Self { size, at: at + 5, unit: 8 * usize::from(most) });
                }
                SCAN => return frame.filter(|_| bytes.get(at + 4) == Some(&(components as u8))),
                // Progressive, lossless or arithmetically coded.
                0xc2..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return None,
                _ => {}
            }
        }
        None
    }

    /// The file with a height that ends a unit behind row `end`, of which the interpolation of colours needs
    /// pixels. What is coded behind that is then not decoded.
    fn down_to<'a>(&self, end: usize, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let unit = self.unit.max(8);
        let height = (end.div_ceil(unit) + 1) * unit;
        if height >= self.size[0] {
            return Cow::Borrowed(bytes);
        }
        let mut shorter = bytes.to_vec();
        shorter[self.at..self.at + 2].copy_from_slice(&(height as u16).to_be_bytes());
        Cow::Owned(shorter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let images = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images");
        std::fs::read(format!("{images}/{name}")).unwrap()
    }

    #[test]
    fn windows_are_parts_of_the_whole() {
        for name in ["420.jpg", "422.jpg", "444.jpg", "restart.jpg", "grey.jpg", "optimized.jpg"] {
            let bytes = file(name);
            let whole = decode_window(&bytes, |[h, w]| [0..h, 0..w]).unwrap().image;
            for end in 1..whole.height {
                let part = decode_window(&bytes, |_| [0..end, 0..1]).unwrap().image;
                let len = end * whole.width * whole.channels;
                assert!(part.pixels[..len] == whole.pixels[..len], "{name} down to {end}");
                assert!(end > 24 || part.height < whole.height, "{name} down to {end}");
            }
        }
    }

    #[test]
    fn other_kinds_are_decoded_whole() {
        for name in ["progressive.jpg", "grey_progressive.jpg"] {
            assert!(Frame::find(&file(name)).is_none());
            let part = decode_window(&file(name), |_| [0..1, 0..1]).unwrap().image;
            assert_eq!((part.height, part.width), (75, 101));
        }
    }

    #[test]
    fn headers_cut_anywhere_are_no_panic() {
        let whole = file("420.jpg");
        for end in 0..700 {
            assert!(decode_window(&whole[..end], |_| [0..1, 0..1]).is_err(), "{end}");
        }
    }
}
