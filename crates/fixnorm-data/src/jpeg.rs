//! JPEG files to pixels. Sequential files of the usual kinds are decoded here (`sequential.rs`), only the window and
//! maybe reduced. What is damaged or progressive goes to `zune-jpeg`; the other kinds, which it gets wrong without an
//! error, go to `jpeg-decoder`.
//! Not here: other formats (`decode.rs`), the headers (`header.rs`).

mod header;
mod huffman;
mod idct;
mod planes;
mod scan;
mod sequential;

use jpeg_decoder::ColorTransform;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::header::{Colours, Header, ends_early};
use crate::Image;
use crate::image::{Part, Wanted, check_size};

/// Decodes the pixels of a window and maybe some around it; see [`crate::decode::decode_window`].
pub(crate) fn decode_window(
    bytes: &[u8],
    choose: impl FnOnce([usize; 2]) -> Wanted,
) -> Result<Part, String> {
    let header = Header::read(bytes)?;
    // Whatever the window: which images are bad must not depend on it.
    if ends_early(bytes) {
        return Err("it ends before its last pixel".to_owned());
    }
    check_size(header.size)?;
    header.check_sampling()?;
    let Wanted { window, reduction } = choose(header.size);
    if header.is_usual() {
        if header.is_sequential()
            && let Some(part) = sequential::decode(bytes, header.size, &window, reduction)
        {
            return Ok(part);
        }
        usual(&header.tidied(window[0].end, bytes), header.colours)
    } else {
        odd(&header.tidied(header.size[0], bytes), header.colours)
    }
    .map(Part::from)
}

fn usual(file: &[u8], colours: Colours) -> Result<Image, String> {
    let (colours, channels) = match colours {
        Colours::Grey => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(colours);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    let pixels = decoder.decode().map_err(|error| format!("{error:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    Ok(Image { height, width, channels, pixels })
}

fn odd(file: &[u8], colours: Colours) -> Result<Image, String> {
    let mut decoder = jpeg_decoder::Decoder::new(file);
    decoder.set_color_transform(match colours {
        Colours::Grey => ColorTransform::Grayscale,
        Colours::YCbCr => ColorTransform::YCbCr,
        Colours::Rgb => ColorTransform::RGB,
        Colours::Cmyk => ColorTransform::CMYK,
        Colours::Ycck => ColorTransform::YCCK,
    });
    let pixels = decoder.decode().map_err(|error| error.to_string())?;
    let info = decoder.info().ok_or("it has no size")?;
    let (height, width) = (usize::from(info.height), usize::from(info.width));
    let (channels, pixels) = match colours {
        Colours::Grey => (1, pixels),
        Colours::YCbCr | Colours::Rgb => (3, pixels),
        Colours::Cmyk | Colours::Ycck => {
            (3, pixels.as_chunks::<4>().0.iter().flat_map(|&cmyk| without_black(cmyk)).collect())
        }
    };
    Ok(Image { height, width, channels, pixels })
}

/// As Pillow converts CMYK to RGB.
fn without_black([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = u32::from(255 - k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        (white - ((product + (product >> 8)) >> 8)) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Window;

    fn file(name: &str) -> Vec<u8> {
        let images = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images");
        std::fs::read(format!("{images}/{name}")).unwrap()
    }

    const SEQUENTIAL: [&str; 9] = [
        "420.jpg",
        "422.jpg",
        "444.jpg",
        "restart.jpg",
        "grey.jpg",
        "optimized.jpg",
        "exif.jpg",
        "tiny.jpg",
        "wide.jpg",
    ];

    /// What the other decoder makes of it.
    fn others(bytes: &[u8]) -> Result<Image, String> {
        let header = Header::read(bytes)?;
        usual(&header.tidied(header.size[0], bytes), header.colours)
    }

    fn reduced(bytes: &[u8], window: Option<Window>, reduction: usize) -> Option<Part> {
        let header = Header::read(bytes).ok().filter(|h| h.is_usual() && h.is_sequential())?;
        check_size(header.size).ok()?;
        let window = window.unwrap_or(Wanted::all(header.size).window);
        sequential::decode(bytes, header.size, &window, reduction)
    }

    /// Whether a part has the whole's pixels.
    fn is_part_of(part: &Part, whole: &Image) -> bool {
        let (line, [top, left]) = (whole.width * whole.channels, part.origin);
        let rows = part.image.pixels.chunks_exact(part.image.width * part.image.channels);
        rows.enumerate().all(|(y, row)| {
            row == &whole.pixels[(top + y) * line + left * whole.channels..][..row.len()]
        })
    }

    #[test]
    fn sequential_files_have_the_other_decoders_pixels() {
        for name in SEQUENTIAL {
            let bytes = file(name);
            let own = reduced(&bytes, None, 1).unwrap();
            assert!(own.image == others(&bytes).unwrap(), "{name}");
        }
    }

    #[test]
    fn windows_are_parts_of_the_whole_at_every_reduction() {
        for name in SEQUENTIAL {
            let bytes = file(name);
            for reduction in [1, 2, 4, 8] {
                let whole = reduced(&bytes, None, reduction).unwrap().image;
                let [height, width] = Header::read(&bytes).unwrap().size;
                assert_eq!(
                    [whole.height, whole.width],
                    [height, width].map(|side| side.div_ceil(reduction))
                );
                for step in 1..40 {
                    let [top, left] = [step * 37 % height, step * 53 % width];
                    let (rows, columns) =
                        (1 + step * 13 % (height - top), 1 + step * 29 % (width - left));
                    let window = [top..top + rows, left..left + columns];
                    let part = reduced(&bytes, Some(window.clone()), reduction).unwrap();
                    assert!(is_part_of(&part, &whole), "{name}, 1/{reduction}, {window:?}");
                    let reaches = |side: usize, len: usize| {
                        part.origin[side] * reduction <= window[side].start
                            && (part.origin[side] + len) * reduction >= window[side].end
                    };
                    assert!(reaches(0, part.image.height) && reaches(1, part.image.width));
                }
            }
        }
    }

    /// The low frequencies of each block of the whole image, in f64.
    fn low_frequencies(whole: &Image, reduction: usize) -> Vec<f64> {
        let (small, c) = (8 / reduction, whole.channels);
        let basis = |n: usize, x: usize, u: usize| {
            let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / (2 * n) as f64;
            angle.cos() * if u == 0 { 1.0 } else { 2f64.sqrt() }
        };
        // From 8 pixels to the fewer: there to frequencies, and back.
        let weight = |to: usize, from: usize| -> f64 {
            (0..small).map(|u| basis(small, to, u) * basis(8, from, u) / 8.0).sum()
        };
        let (height, width) = (whole.height / 8 * small, whole.width / 8 * small);
        let pixel = |y: usize, x: usize, channel: usize| -> f64 {
            let terms = (0..64).map(|at| {
                let [row, column] = [y / small * 8 + at / 8, x / small * 8 + at % 8];
                let value = whole.pixels[(row * whole.width + column) * c + channel];
                f64::from(value) * weight(y % small, at / 8) * weight(x % small, at % 8)
            });
            terms.sum()
        };
        let all = (0..height * width * c).map(|i| pixel(i / c / width, i / c % width, i % c));
        all.collect()
    }

    #[test]
    fn reduced_images_are_the_low_frequencies_of_the_whole() {
        // Without interpolated chroma all of it is linear but for rounding and cutting to bytes.
        for (name, most) in [("grey.jpg", 3.0), ("444.jpg", 6.0), ("420.jpg", 40.0)] {
            let bytes = file(name);
            let whole = others(&bytes).unwrap();
            for reduction in [2, 4, 8] {
                let found = reduced(&bytes, None, reduction).unwrap().image;
                let expected = low_frequencies(&whole, reduction);
                let width = whole.width / 8 * 8 / reduction * whole.channels;
                let rows = found.pixels.chunks_exact(found.width * found.channels);
                let pairs = rows
                    .zip(expected.chunks_exact(width))
                    .flat_map(|(found, expected)| found.iter().zip(expected));
                let away = pairs.map(|(&found, &expected)| (f64::from(found) - expected).abs());
                let (count, sum, worst) = away
                    .fold((0, 0.0, 0.0f64), |(count, sum, worst), away| {
                        (count + 1, sum + away, worst.max(away))
                    });
                let mean = sum / f64::from(count);
                assert!(mean < 2.0 && worst < most, "{name} 1/{reduction}: {mean}, {worst}");
            }
        }
    }

    #[test]
    fn damaged_files_are_left_to_the_other_decoder_or_decoded_like_it() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize % below
        };
        for name in SEQUENTIAL {
            let whole = file(name);
            let mut decoded = 0;
            for round in 0..200 {
                let mut bytes = whole.clone();
                // Behind the marker that starts a file.
                let at = 2 + random(bytes.len() - 2);
                match round % 3 {
                    0 => bytes[at] = random(256) as u8,
                    1 => drop(bytes.drain(at..(at + random(40)).min(whole.len()))),
                    _ => bytes.insert(at, [0xff, random(256) as u8][random(2)]),
                }
                let size = Header::read(&bytes).map_or([3, 3], |header| header.size);
                let middle = size.map(|side| side / 3..(side / 3 + side / 2 + 1).min(side));
                for reduction in [1, 2, 4, 8] {
                    reduced(&bytes, Some(middle.clone()), reduction);
                }
                let (Some(own), Ok(other)) = (reduced(&bytes, None, 1), others(&bytes)) else {
                    continue;
                };
                decoded += 1;
                assert!(own.image == other, "{name}, round {round}");
            }
            assert!(decoded > 20, "{name}: {decoded}");
        }
    }

    #[test]
    fn other_kinds_are_decoded_whole() {
        for name in ["progressive.jpg", "grey_progressive.jpg"] {
            let wanted = |_| Wanted { window: [0..1, 0..1], reduction: 8 };
            let part = decode_window(&file(name), wanted).unwrap();
            assert_eq!((part.image.height, part.image.width, part.reduction), (75, 101, 1));
        }
    }

    #[test]
    fn headers_cut_anywhere_are_no_panic() {
        let whole = file("420.jpg");
        for end in 0..700 {
            assert!(decode_window(&whole[..end], Wanted::all).is_err(), "{end}");
        }
    }
}
