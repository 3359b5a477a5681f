//! Image files to pixels, whatever their names.
//! Not here: recognising formats (`format.rs`), JPEG (`jpeg.rs`), resizing (`resize.rs`), random changes and
//! normalization (`transform.rs`).
//!
//! Pixels are those that Pillow's `convert("RGB")` has, as torchvision and timm use it: alpha is dropped, a
//! palette gives its colours, of 16 bits the upper 8 are kept (but grey of 16 bits is cut at 255: so does
//! Pillow, and nearly everything is white), CMYK becomes RGB without a profile. Grey stays one channel. The
//! orientation that a camera noted (EXIF) is not applied, which neither of the two does.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};

use crate::channels::recoloured;
use crate::format::{FileKind, Format, NAMES};
use crate::image::{MAX_PIXELS, Part, Wanted, check_size};
use crate::{DataError, Encoded, Image, jpeg};

/// The most bytes that an image file may have.
pub const MAX_FILE_BYTES: u64 = 1 << 28;

/// Reads an image file; grey images have one channel, others three.
///
/// # Errors
/// A file that cannot be read, or is not such an image.
pub fn read_image(path: &Path) -> Result<Image, DataError> {
    decode(&read_encoded(path)?)
}

/// An image file's bytes.
///
/// # Errors
/// A file that cannot be read, or has more than [`MAX_FILE_BYTES`].
pub(crate) fn read_encoded(path: &Path) -> Result<Encoded, DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    // Opening a named pipe would wait for somebody to write into it.
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    } else if !kind.is_file() {
        let message = "it is a pipe, socket or device".to_owned();
        return Err(DataError::NotAnImage { path: path.to_owned(), message });
    }
    let mut bytes = vec![];
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("it has more than {MAX_FILE_BYTES} bytes");
        return Err(DataError::NotAnImage { path: path.to_owned(), message });
    }
    Ok(Encoded { bytes, name: path.to_owned() })
}

/// The bytes of an image in a file of many. Opened each time: sets have more files than a process may have open.
pub(crate) fn read_within(path: &Path, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; size as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The whole image; grey images have one channel, others three.
///
/// # Errors
/// [`DataError::NotAnImage`]: a file in no format that is read, a torn one, or more than [`MAX_PIXELS`] pixels.
pub fn decode(encoded: &Encoded) -> Result<Image, DataError> {
    decode_window(encoded, Wanted::all).map(|part| part.image)
}

/// The pixels of a window, and maybe some around it. `choose` is given height and width of the whole and returns
/// the window, which must have pixels, and how much it may be reduced. Of what is outside of it as little is decoded
/// as the format allows, and errors there may go unnoticed.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_window(
    encoded: &Encoded,
    choose: impl FnOnce([usize; 2]) -> Wanted,
) -> Result<Part, DataError> {
    let wrong = |message: String| DataError::NotAnImage { path: encoded.name.clone(), message };
    let bytes = &encoded.bytes[..];
    let format = match FileKind::of(bytes) {
        FileKind::Image(Format::Jpeg) => {
            return jpeg::decode_window(bytes, choose).map_err(wrong);
        }
        FileKind::Image(Format::Png) => ImageFormat::Png,
        FileKind::Image(Format::WebP) => ImageFormat::WebP,
        FileKind::Image(Format::Bmp) => ImageFormat::Bmp,
        FileKind::Image(Format::Gif) => ImageFormat::Gif,
        FileKind::Image(Format::Tiff) => ImageFormat::Tiff,
        FileKind::Image(Format::Pnm) => ImageFormat::Pnm,
        FileKind::Other(what) => {
            return Err(wrong(format!("it is {what}; {NAMES} are read")));
        }
        FileKind::Unknown => return Err(wrong(unknown(bytes))),
    };
    let image = decode_whole(bytes, format).map_err(wrong)?;
    choose([image.height, image.width]);
    Ok(Part::from(image))
}

/// The error for a file of unknown format.
fn unknown(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "it is empty".to_owned()
    } else if bytes.iter().all(|&byte| byte == 0) {
        "it holds nothing but zeros".to_owned()
    } else {
        let start = &bytes[..bytes.len().min(4)];
        format!("it begins with {start:02x?}, like no image; {NAMES} are read")
    }
}

fn decode_whole(bytes: &[u8], format: ImageFormat) -> Result<Image, String> {
    let reader = || {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::default();
        // Of four channels of 16 bits.
        limits.max_alloc = Some(8 * MAX_PIXELS as u64);
        reader.limits(limits);
        reader
    };
    let (width, height) = reader().into_dimensions().map_err(|error| error.to_string())?;
    check_size([height as usize, width as usize])?;
    let image = reader().decode().map_err(|error| error.to_string())?;
    // Grey with one transparent value, as opposed to grey with alpha: bit depth and colour type of the PNG header.
    Ok(match image {
        DynamicImage::ImageLumaA16(image)
            if format == ImageFormat::Png && bytes.get(24..26) == Some(&[16, 0]) =>
        {
            without_alpha(DynamicImage::ImageLuma16(DynamicImage::from(image).into_luma16()))
        }
        image => without_alpha(image),
    })
}

/// As Pillow converts.
fn without_alpha(image: DynamicImage) -> Image {
    let upper = |values: Vec<u16>| values.into_iter().map(|value| (value >> 8) as u8).collect();
    let cut = |values: Vec<u16>| values.into_iter().map(|value| value.min(255) as u8).collect();
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (channels, pixels) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        DynamicImage::ImageLumaA8(image) => (2, image.into_raw()),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        DynamicImage::ImageRgba8(image) => (4, image.into_raw()),
        DynamicImage::ImageLuma16(image) => (1, cut(image.into_raw())),
        DynamicImage::ImageLumaA16(image) => (2, upper(image.into_raw())),
        DynamicImage::ImageRgb16(image) => (3, upper(image.into_raw())),
        DynamicImage::ImageRgba16(image) => (4, upper(image.into_raw())),
        // Not of the formats read here.
        other => (3, other.into_rgb8().into_raw()),
    };
    let image = Image { height, width, channels, pixels };
    match channels {
        2 => recoloured(&image, 1),
        4 => recoloured(&image, 3),
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit;

    #[test]
    fn images_are_read_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let grey = image::GrayImage::from_fn(5, 3, |x, y| image::Luma([(x * 40 + y) as u8]));
        let path = dir.path().join("grey.jpg");
        grey.save_with_format(&path, image::ImageFormat::Png).unwrap();
        let read = read_image(&path).unwrap();
        assert_eq!((read.height, read.width, read.channels), (3, 5, 1));
        assert_eq!(read.pixels, grey.into_raw());

        let flat = image::RgbImage::from_pixel(9, 6, image::Rgb([90, 150, 30]));
        let path = dir.path().join("no-ending");
        flat.save_with_format(&path, image::ImageFormat::Jpeg).unwrap();
        let read = read_image(&path).unwrap();
        assert_eq!((read.height, read.width, read.channels), (6, 9, 3));
        let near = |(found, expected): (&u8, u8)| found.abs_diff(expected) <= 3;
        assert!(read.pixels.iter().zip([90, 150, 30].into_iter().cycle()).all(near));

        let colour = image::RgbaImage::from_pixel(4, 2, image::Rgba([200, 100, 50, 7]));
        let path = dir.path().join("colour.png");
        colour.save(&path).unwrap();
        let read = read_image(&path).unwrap();
        assert_eq!((read.channels, &read.pixels[..3]), (3, &[200, 100, 50][..]));
        // PIL: Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0)) is 124.
        assert_eq!(fit(&read, [2, 4, 1]).pixels, [124; 8]);
    }

    #[test]
    fn what_is_not_an_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.png");
        std::fs::write(&path, "not an image").unwrap();
        let error = read_image(&path).unwrap_err();
        assert!(
            matches!(error, DataError::NotAnImage { .. })
                && error.to_string().contains("notes.png")
        );
        let whole = dir.path().join("whole.png");
        image::GrayImage::from_fn(40, 30, |x, y| image::Luma([(x * y) as u8]))
            .save(&whole)
            .unwrap();
        let bytes = std::fs::read(&whole).unwrap();
        let torn = dir.path().join("torn.png");
        std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(read_image(&torn).unwrap_err(), DataError::NotAnImage { .. }));
        assert!(matches!(read_image(dir.path()).unwrap_err(), DataError::Read { .. }));
        assert!(matches!(
            read_image(&dir.path().join("none")).unwrap_err(),
            DataError::Read { .. }
        ));
    }

    fn jpeg(image: &image::RgbImage) -> Vec<u8> {
        let mut bytes = vec![];
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
            .encode_image(image)
            .unwrap();
        bytes
    }

    fn reason(bytes: Vec<u8>) -> String {
        decode(&Encoded { bytes, name: "x.jpg".into() }).unwrap_err().to_string()
    }

    #[test]
    fn grey_of_16_bits_is_cut_with_and_without_a_transparent_value() {
        let mut png = vec![];
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        let grey = image::ImageBuffer::from_raw(2, 1, vec![77_u16, 3000]).unwrap();
        DynamicImage::ImageLuma16(grey).write_with_encoder(encoder).unwrap();
        let pixels = |bytes| decode(&Encoded { bytes, name: "x.png".into() }).unwrap().pixels;
        assert_eq!(pixels(png.clone()), [77, 255]);
        // Behind the header of 33 bytes: a transparent value of 77.
        let transparent = b"\0\0\0\x02tRNS\0\x4d\x7e\xfe\xf0\x15";
        png.splice(33..33, transparent.iter().copied());
        assert_eq!(pixels(png), [77, 255]);
    }

    #[test]
    fn torn_jpegs_are_no_images() {
        let image = image::RgbImage::from_fn(64, 48, |x, y| {
            image::Rgb([(x * 4) as u8, (y * 5) as u8, (x * y) as u8])
        });
        let whole = jpeg(&image);
        assert!(decode(&Encoded { bytes: whole.clone(), name: "x.jpg".into() }).is_ok());
        for kept in [0, 1, 2, 3, 10, 100, whole.len() / 2, whole.len() * 9 / 10, whole.len() - 2] {
            let said = reason(whole[..kept].to_vec());
            assert!(said.starts_with("x.jpg cannot be decoded: it "), "{kept}: {said}");
        }
    }

    #[test]
    fn what_would_not_fit_into_memory_is_refused_by_its_header() {
        // Height and width stand behind the frame header's marker, length and precision.
        let mut bytes = jpeg(&image::RgbImage::new(16, 16));
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
        assert!(reason(bytes).contains("which is more than"));

        let mut png = vec![];
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        image::RgbImage::new(16, 16).write_with_encoder(encoder).unwrap();
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        assert!(reason(png).starts_with("x.jpg cannot be decoded"));
    }
}
