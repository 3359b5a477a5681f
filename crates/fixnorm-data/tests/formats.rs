//! Unusual files, decoded as Pillow decodes them or refused with a reason. `fuzz/odd_fixtures.py` writes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use fixnorm_data::{Image, read_image};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The values in RGB.
fn rgb(image: &Image) -> Vec<u8> {
    let repeats = 3 / image.channels;
    image.pixels.iter().flat_map(|&value| vec![value; repeats]).collect()
}

fn reason(path: &Path) -> String {
    read_image(path).unwrap_err().to_string()
}

#[test]
fn unusual_files_have_the_pixels_that_pillow_gives_them() {
    let files = std::fs::read_dir(fixtures().join("odd")).unwrap();
    let names = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "png"));
    let names: Vec<PathBuf> = names.collect();
    assert_eq!(names.len(), 18);
    for path in names {
        let expected = read_image(Path::new(&format!("{}.png", path.display()))).unwrap();
        let found = read_image(&path).unwrap_or_else(|error| panic!("{error}"));
        let name = path.display();
        assert_eq!((found.height, found.width), (expected.height, expected.width), "{name}");
        let (found, expected) = (rgb(&found), rgb(&expected));
        let differences = found.iter().zip(&expected).map(|(a, b)| u32::from(a.abs_diff(*b)));
        let lossy = path.extension().is_some_and(|ending| ending == "jpg");
        let (most, mean) = if lossy { (8, 1.0) } else { (0, 0.0) };
        let largest = differences.clone().max().unwrap();
        let average = f64::from(differences.sum::<u32>()) / found.len() as f64;
        assert!(largest <= most && average <= mean, "{name}: {largest}, {average} on average");
    }
}

#[test]
fn kinds_that_are_not_decoded_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let arithmetic = std::fs::read(fixtures().join("arithmetic.jpg")).unwrap();
    let plain = std::fs::read(fixtures().join("images/420.jpg")).unwrap();
    let frame = plain.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    let changed = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[frame + at] = value;
        bytes
    };
    let table = plain.windows(2).position(|marker| marker == [0xff, 0xc4]).unwrap();
    let mut damaged_table = plain.clone();
    // Behind the marker, length, class and 16 counts.
    damaged_table[table + 21] = 0x4f;
    let mut sampled = std::fs::read(fixtures().join("odd/scans_420.jpg")).unwrap();
    let sampled_frame = sampled.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    sampled[sampled_frame + 11] = 0x44;
    sampled[sampled_frame + 14] = 0x22;
    for (bytes, expected) in [
        (sampled, "its sampling factors 4x4, 2x2, 1x1 are not read in a file of several scans"),
        (arithmetic, "it is arithmetically coded (SOF9), which is not read"),
        (changed(1, 0xc3), "it is losslessly coded (SOF3), which is not read"),
        (changed(1, 0xc5), "it is hierarchically coded (SOF5), which is not read"),
        (changed(4, 12), "it has 12 bits a value; 8 are read"),
        (damaged_table, "its Huffman tables are damaged"),
        (changed(11, 0), "its sampling factors are [0, 0], expected 1 to 4"),
        (plain[..plain.len() - 2].to_vec(), "it ends before its last pixel"),
        (b"\0\0\0\x20ftypheic\0\0\0\0".to_vec(), "it is a HEIC or HEIF file; JPEG, PNG, WebP"),
        (b"<!DOCTYPE html><html>".to_vec(), "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), "it is a Git LFS pointer"),
        (vec![0; 64], "it holds nothing but zeros"),
        (vec![], "it is empty"),
        (b"text".to_vec(), "it begins with [74, 65, 78, 74], like no image"),
    ] {
        let path = dir.path().join("x.jpg");
        std::fs::write(&path, bytes).unwrap();
        let expected = format!("{} cannot be decoded: {expected}", path.display());
        assert!(reason(&path).starts_with(&expected), "{}\n{expected}", reason(&path));
    }
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_devices_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.jpg");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = dir.path().join("socket.jpg");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [&pipe, &socket, Path::new("/dev/zero")] {
        assert!(reason(path).ends_with("it is a pipe, socket or device"), "{path:?}");
    }
}
