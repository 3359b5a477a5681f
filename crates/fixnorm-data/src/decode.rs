//! A picture file to pixels of a wanted shape.

use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};

use crate::{DataError, Picture};

/// Reads a PNG or JPEG file, told apart by its content; grey pictures have one channel, others three.
///
/// # Errors
/// A file that cannot be read, or is not such a picture.
pub fn read_picture(path: &Path) -> Result<Picture, DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    let reader =
        ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(unreadable)?;
    let decoded = reader.decode().map_err(|error| DataError::NotAPicture {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    Ok(match decoded.color().has_color() {
        true => picture(DynamicImage::ImageRgb8(decoded.into_rgb8())),
        false => picture(DynamicImage::ImageLuma8(decoded.into_luma8())),
    })
}

fn picture(image: DynamicImage) -> Picture {
    Picture {
        height: image.height() as usize,
        width: image.width() as usize,
        channels: usize::from(image.color().channel_count()),
        pixels: image.into_bytes(),
    }
}

/// The picture in another shape: `[height, width, channels]` with 1 or 3 channels.
///
/// Resized with an antialiased bilinear filter where the size differs; colours become grey by
/// ITU-R 601 weights, grey becomes three equal channels.
pub fn fit(picture: &Picture, shape: [usize; 3]) -> Picture {
    let [height, width, channels] = shape;
    let recoloured = match (picture.channels, channels) {
        (3, 1) => picture.pixels.chunks_exact(3).map(luma).collect(),
        (1, 3) => picture.pixels.iter().flat_map(|&p| [p; 3]).collect(),
        _ => picture.pixels.clone(),
    };
    let pixels = match (picture.height, picture.width) == (height, width) {
        true => recoloured,
        false => resize(recoloured, picture, shape),
    };
    Picture { height, width, channels, pixels }
}

/// Rounded as PIL's conversion to `L` rounds.
fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

fn resize(pixels: Vec<u8>, from: &Picture, [height, width, channels]: [usize; 3]) -> Vec<u8> {
    let size =
        |value: usize| u32::try_from(value).expect("pictures have less than 2^32 pixels a side");
    let (w, h) = (size(from.width), size(from.height));
    let image = match channels {
        1 => image::GrayImage::from_raw(w, h, pixels).map(DynamicImage::ImageLuma8),
        _ => image::RgbImage::from_raw(w, h, pixels).map(DynamicImage::ImageRgb8),
    };
    let image = image.expect("the buffer has height · width · channels bytes");
    image.resize_exact(size(width), size(height), FilterType::Triangle).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let grey = image::GrayImage::from_fn(5, 3, |x, y| image::Luma([(x * 40 + y) as u8]));
        let path = dir.path().join("grey.jpg");
        grey.save_with_format(&path, image::ImageFormat::Png).unwrap();
        let read = read_picture(&path).unwrap();
        assert_eq!((read.height, read.width, read.channels), (3, 5, 1));
        assert_eq!(read.pixels, grey.into_raw());

        let colour = image::RgbaImage::from_pixel(4, 2, image::Rgba([200, 100, 50, 7]));
        let path = dir.path().join("colour.png");
        colour.save(&path).unwrap();
        let read = read_picture(&path).unwrap();
        assert_eq!((read.channels, &read.pixels[..3]), (3, &[200, 100, 50][..]));
        // PIL: Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0)) is 124.
        assert_eq!(fit(&read, [2, 4, 1]).pixels, [124; 8]);
    }

    #[test]
    fn what_is_not_a_picture_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.png");
        std::fs::write(&path, "not a picture").unwrap();
        let error = read_picture(&path).unwrap_err();
        assert!(
            matches!(error, DataError::NotAPicture { .. })
                && error.to_string().contains("notes.png")
        );
        assert!(matches!(read_picture(dir.path()).unwrap_err(), DataError::Read { .. }));
        assert!(matches!(
            read_picture(&dir.path().join("none")).unwrap_err(),
            DataError::Read { .. }
        ));
    }

    #[test]
    fn fitting_keeps_what_fits() {
        let picture =
            Picture { height: 2, width: 3, channels: 1, pixels: vec![10, 20, 30, 40, 50, 60] };
        assert_eq!(fit(&picture, [2, 3, 1]), picture);
        assert_eq!(fit(&picture, [2, 3, 3]).pixels[..6], [10, 10, 10, 20, 20, 20]);
        let flat = Picture { pixels: vec![77; 6], ..picture };
        assert_eq!(fit(&flat, [5, 4, 3]).pixels, [77; 60]);
    }
}
