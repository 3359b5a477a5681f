//! A picture file to pixels of a wanted shape.
//! Not here: random changes and normalization (`transform.rs`), resizing itself (`resize.rs`).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::{DynamicImage, ImageReader};

use crate::resize::{Interpolation, resize};
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
    let file = BufReader::new(File::open(path).map_err(unreadable)?);
    // Not `ImageReader::open`: it believes the name where the content says nothing.
    let reader = ImageReader::new(file).with_guessed_format().map_err(unreadable)?;
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

/// The picture in another shape: `[height, width, channels]` with 1 or 3 channels. It may itself have
/// grey, grey and alpha, RGB, or RGBA; alpha is dropped.
///
/// Resized with an antialiased bilinear filter where the size differs; colours become grey by
/// ITU-R 601 weights, grey becomes three equal channels.
///
/// # Panics
/// If either has another number of channels, or no pixels.
pub fn fit(picture: &Picture, shape: [usize; 3]) -> Picture {
    let [height, width, channels] = shape;
    resize(&recoloured(picture, channels), height, width, Interpolation::Bilinear)
}

/// The picture with 1 or 3 channels, colours and alpha as in [`fit`].
///
/// # Panics
/// If either has another number of channels.
pub(crate) fn recoloured(picture: &Picture, channels: usize) -> Picture {
    let pixels = picture.pixels.chunks_exact(picture.channels);
    let pixels: Vec<u8> = match (picture.channels, channels) {
        (1, 1) | (3, 3) => picture.pixels.clone(),
        (2, 1) => pixels.map(|pixel| pixel[0]).collect(),
        (1 | 2, 3) => pixels.flat_map(|pixel| [pixel[0]; 3]).collect(),
        (3 | 4, 1) => pixels.map(luma).collect(),
        (4, 3) => pixels.flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        (from, to) => {
            panic!("pictures have 1 to 4 channels and models 1 or 3, not {from} and {to}")
        }
    };
    Picture { channels, pixels, ..*picture }
}

/// Rounded as PIL's conversion to `L` rounds.
fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
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

        let flat = image::RgbImage::from_pixel(9, 6, image::Rgb([90, 150, 30]));
        let path = dir.path().join("no-ending");
        flat.save_with_format(&path, image::ImageFormat::Jpeg).unwrap();
        let read = read_picture(&path).unwrap();
        assert_eq!((read.height, read.width, read.channels), (6, 9, 3));
        let near = |(found, expected): (&u8, u8)| found.abs_diff(expected) <= 3;
        assert!(read.pixels.iter().zip([90, 150, 30].into_iter().cycle()).all(near));

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
        let whole = dir.path().join("whole.png");
        image::GrayImage::from_fn(40, 30, |x, y| image::Luma([(x * y) as u8]))
            .save(&whole)
            .unwrap();
        let bytes = std::fs::read(&whole).unwrap();
        let torn = dir.path().join("torn.png");
        std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(read_picture(&torn).unwrap_err(), DataError::NotAPicture { .. }));
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

    #[test]
    fn alpha_is_dropped() {
        let picture = |channels, pixels: &[u8]| Picture {
            height: 1,
            width: 2,
            channels,
            pixels: pixels.to_vec(),
        };
        let colour = picture(4, &[200, 100, 50, 0, 9, 9, 9, 255]);
        assert_eq!(fit(&colour, [1, 2, 3]).pixels, [200, 100, 50, 9, 9, 9]);
        assert_eq!(fit(&colour, [1, 2, 1]).pixels, [124, 9]);
        let grey = picture(2, &[5, 0, 6, 255]);
        assert_eq!(fit(&grey, [1, 2, 1]).pixels, [5, 6]);
        assert_eq!(fit(&grey, [1, 2, 3]).pixels, [5, 5, 5, 6, 6, 6]);
    }

    #[test]
    fn shrinking_averages_instead_of_skipping() {
        // Columns of 0 and 240 in turn: a filter without antialiasing keeps one of the two.
        let pixels = (0..6 * 16).map(|i| if i % 2 == 0 { 0 } else { 240 }).collect();
        let stripes = Picture { height: 6, width: 16, channels: 1, pixels };
        let small = fit(&stripes, [3, 4, 1]);
        assert_eq!((small.height, small.width, small.channels), (3, 4, 1));
        assert!(small.pixels.iter().all(|p| (100..=140).contains(p)), "{:?}", small.pixels);
    }
}
