//! JPEG files to pixels. The usual kinds go to `zune-jpeg`, of which no more is decoded than down to a window's last
//! row; the others, which it gets wrong without an error, go to `jpeg-decoder`.
//! Not here: other formats (`decode.rs`), the headers (`header.rs`).

mod header;

use jpeg_decoder::ColorTransform;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::header::{Colours, Header, ends_early};
use crate::Image;
use crate::image::{Part, Window, check_size};

/// Decodes the pixels of a window and maybe some around it; see [`crate::decode::decode_window`].
pub(crate) fn decode_window(
    bytes: &[u8],
    choose: impl FnOnce([usize; 2]) -> Window,
) -> Result<Part, String> {
    let header = Header::read(bytes)?;
    // Whatever the window: which images are bad must not depend on it.
    if ends_early(bytes) {
        return Err("it ends before its last pixel".to_owned());
    }
    check_size(header.size)?;
    header.check_sampling()?;
    let [rows, _] = choose(header.size);
    if header.is_usual() {
        usual(&header.tidied(rows.end, bytes), header.colours)
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
