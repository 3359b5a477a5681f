//! JPEG files, by the decoder `zune-jpeg`.
//! Not here: other formats (`decode.rs`).

use std::ops::Range;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::Picture;
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
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| format!("{error:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    check_size([height, width])?;
    let colours = decoder.input_colorspace().ok_or("it has no colours")?;
    let grey = matches!(colours, ColorSpace::Luma);
    let out = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let _window: [Range<usize>; 2] = choose([height, width]);
    let pixels = decoder.decode().map_err(|error| format!("{error:?}"))?;
    let channels = if grey { 1 } else { 3 };
    Ok(Part::from(Picture { height, width, channels, pixels }))
}
