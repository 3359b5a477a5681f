//! Image formats, recognised by a file's first bytes and never by its name.
//! Not here: decoding them (`decode.rs`), which files of a directory are images (`walk.rs`).

/// An image format that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG, with JFIF, Exif or neither.
    Jpeg,
    /// PNG; of an animated one the still image.
    Png,
    /// WebP, lossy or lossless; of an animated one the first frame.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF; of an animated one the first frame.
    Gif,
    /// TIFF; of several pages the first.
    Tiff,
    /// PBM, PGM and PPM, as text or binary.
    Pnm,
}

impl Format {
    /// The format's name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Bmp => "BMP",
            Format::Gif => "GIF",
            Format::Tiff => "TIFF",
            Format::Pnm => "PNM",
        }
    }
}

/// Names of the formats that are decoded, for messages.
pub const NAMES: &str = "JPEG, PNG, WebP, BMP, GIF, TIFF and PNM";

/// Endings of files in formats that are decoded, in lower case.
pub const ENDINGS: [&str; 18] = [
    "jpg", "jpeg", "jpe", "jif", "jfif", "jfi", "png", "apng", "webp", "bmp", "dib", "gif", "tif",
    "tiff", "pnm", "ppm", "pgm", "pbm",
];

/// Endings of images in formats that are not decoded, in lower case.
pub const OTHER_ENDINGS: [&str; 22] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "jpx", "svg", "svgz", "ico", "cur", "tga", "psd",
    "exr", "hdr", "dds", "qoi", "pam", "pfm", "dcm", "dng", "nef",
];

/// A file's content by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An image in a format that is decoded.
    Image(Format),
    /// Something else that is known, with its article: `"a HEIC file"`.
    Other(&'static str),
    /// Nothing that is known.
    Unknown,
}

/// Bytes that [`FileKind::of`] looks at; more do no harm.
pub const BYTES_NEEDED: usize = 132;

impl FileKind {
    /// Recognises a file by its first bytes, at best [`BYTES_NEEDED`] of them.
    pub fn of(bytes: &[u8]) -> Self {
        if let Some((_, format)) = SIGNATURES.iter().find(|(start, _)| bytes.starts_with(start)) {
            return FileKind::Image(*format);
        }
        match *bytes {
            [b'P', b'1'..=b'6', next, ..] if next.is_ascii_whitespace() || next == b'#' => {
                return FileKind::Image(Format::Pnm);
            }
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                return FileKind::Image(Format::WebP);
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => {
                return FileKind::Other("an AVIF file");
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', b'e' | b'i' | b's', ..] => {
                return FileKind::Other("a HEIC or HEIF file");
            }
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => return FileKind::Other("a video"),
            _ => {}
        }
        if bytes.get(128..132) == Some(b"DICM") {
            return FileKind::Other("a DICOM file");
        }
        let text = bytes.trim_ascii_start();
        let markup = |start: &&str| {
            text.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start.as_bytes()))
        };
        if ["<!doctype html", "<html", "<head", "<body"].iter().any(markup) {
            return FileKind::Other("a web page");
        }
        if ["<svg", "<?xml"].iter().any(markup) {
            return FileKind::Other("an SVG or XML file");
        }
        let known = OTHERS.iter().find(|(start, _)| bytes.starts_with(start));
        known.map_or(FileKind::Unknown, |(_, what)| FileKind::Other(what))
    }
}

const SIGNATURES: [(&[u8], Format); 9] = [
    (b"\xff\xd8\xff", Format::Jpeg),
    (b"\x89PNG\r\n\x1a\n", Format::Png),
    (b"GIF87a", Format::Gif),
    (b"GIF89a", Format::Gif),
    (b"BM", Format::Bmp),
    (b"II*\0", Format::Tiff),
    (b"MM\0*", Format::Tiff),
    (b"II+\0", Format::Tiff),
    (b"MM\0+", Format::Tiff),
];

const OTHERS: [(&[u8], &str); 24] = [
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\x01\0", "an icon file (ICO)"),
    (b"DDS ", "a DDS file"),
    (b"qoif", "a QOI file"),
    (b"P7\n", "a PAM file"),
    (b"PF\n", "a PFM file"),
    (b"Pf\n", "a PFM file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"#?RGBE", "a Radiance HDR file"),
    (b"%PDF", "a PDF file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PK\x03\x04", "a ZIP file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer in place of the file (`git lfs pull` fetches it)",
    ),
    (b"\0\x05\x16\x07", "an AppleDouble file, which macOS writes beside others"),
    (b"\0\x05\x16\0", "an AppleSingle file"),
    (b"{", "a JSON file"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognised_by_their_first_bytes() {
        use FileKind::{Image, Other, Unknown};
        for (bytes, kind) in [
            (&b"\xff\xd8\xff\xe1"[..], Image(Format::Jpeg)),
            (b"\x89PNG\r\n\x1a\n", Image(Format::Png)),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Image(Format::WebP)),
            (b"RIFF\x10\0\0\0WAVEfmt ", Unknown),
            (b"BM\x46\0", Image(Format::Bmp)),
            (b"GIF89a", Image(Format::Gif)),
            (b"II*\0", Image(Format::Tiff)),
            (b"MM\0*", Image(Format::Tiff)),
            (b"P5\n", Image(Format::Pnm)),
            (b"P6#x", Image(Format::Pnm)),
            (b"P7\n", Other("a PAM file")),
            (b"P6x", Unknown),
            (b"\0\0\0\x1cftypavif", Other("an AVIF file")),
            (b"\0\0\0\x18ftypheic", Other("a HEIC or HEIF file")),
            (b"\0\0\0\x18ftypmif1", Other("a HEIC or HEIF file")),
            (b"\0\0\0\x18ftypisom", Other("a video")),
            (b"\n <!DOCTYPE html>", Other("a web page")),
            (b"", Unknown),
            (b"no image", Unknown),
        ] {
            assert_eq!(FileKind::of(bytes), kind, "{bytes:?}");
        }
        let mut dicom = [0; BYTES_NEEDED];
        dicom[128..].copy_from_slice(b"DICM");
        assert_eq!(FileKind::of(&dicom), Other("a DICOM file"));
    }

    #[test]
    fn endings_are_in_one_list() {
        assert!(ENDINGS.iter().all(|ending| !OTHER_ENDINGS.contains(ending)));
    }
}
