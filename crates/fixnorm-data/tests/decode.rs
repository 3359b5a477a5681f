//! Files of many kinds, decoded and made ready for validation, against torchvision (Pillow underneath), from
//! `benches/peers/augment_fixture.py`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fixnorm_data::{
    Crop, DataError, Encoded, Interpolation, Loader, LoaderConfig, Normalization, OnBad,
    Preprocessing, Sample, Source, Transform, decode, read_image,
};
use serde_json::Value;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Numbers that are the pixels.
fn as_pixels() -> Normalization {
    Normalization { mean: vec![0.0; 3], std: vec![1.0 / 255.0; 3] }
}

/// One sample.
struct One(Sample);

impl Source for One {
    fn len(&self) -> usize {
        1
    }
    fn sample(&self, _: usize) -> Result<Sample, DataError> {
        Ok(self.0.clone())
    }
    fn label(&self, _: usize) -> u32 {
        0
    }
}

fn encoded(file: &Path) -> Sample {
    Sample::Encoded(Encoded { bytes: std::fs::read(file).unwrap(), name: file.to_owned() })
}

fn loaded(
    source: One,
    transform: Transform,
    side: usize,
    seed: u64,
) -> Result<Vec<f32>, DataError> {
    let config = LoaderConfig {
        batch_size: 1,
        workers: 0,
        prefetch: 1,
        seed,
        shuffle: false,
        drop_last: false,
        transform,
        normalization: as_pixels(),
        on_bad: OnBad::Replace,
        max_bad: 0.0,
        cache: None,
    };
    let loader = Loader::new(Arc::new(source), [side, side, 3], config)?;
    loader.epoch(0).next().unwrap().map(|batch| batch.pixels.floats().into_owned())
}

#[test]
fn validation_crops_are_torchvisions() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/decode.json")).unwrap();
    let side = fixture["side"].as_u64().unwrap() as usize;
    let crop_ratio = fixture["crop_ratio"].as_f64().unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 23);
    let mut wrong = vec![];
    for case in cases {
        let name = case["file"].as_str().unwrap();
        let file = fixtures().join("images").join(name);
        for (key, interpolation) in
            [("bilinear", Interpolation::Bilinear), ("bicubic", Interpolation::Bicubic)]
        {
            let expected = bytes(case[key].as_str().unwrap());
            let transform =
                Transform { crop: Crop::Center, crop_ratio, interpolation, ..Transform::default() };
            let found = loaded(One(encoded(&file)), transform, side, 3).unwrap();
            assert_eq!(found.len(), expected.len());
            let sum: f32 =
                found.iter().zip(&expected).map(|(a, &b)| (a - f32::from(b)).abs()).sum();
            let mean = sum / expected.len() as f32;
            if mean > 2.0 {
                wrong.push(format!("{name} {key}: {mean} of 255"));
            }
            let preprocessing = Preprocessing {
                shape: [side, side, 3],
                crop_ratio,
                interpolation,
                normalization: as_pixels(),
            };
            let mut again = vec![];
            preprocessing.apply(&read_image(&file).unwrap(), &mut again);
            assert_eq!(found, again, "{name}: training's and prediction's ways");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn training_crops_of_a_file_are_those_of_its_pixels() {
    let transform = Transform {
        crop: Crop::RandomResized,
        hflip: 0.5,
        exact_decode: true,
        ..Transform::default()
    };
    for entry in std::fs::read_dir(fixtures().join("images")).unwrap() {
        let file = entry.unwrap().path();
        let image = read_image(&file).unwrap();
        for seed in 0..20 {
            let of = |sample| loaded(One(sample), transform.clone(), 16, seed).unwrap();
            let found = of(encoded(&file));
            let expected = of(Sample::Pixels(image.clone()));
            assert!(found == expected, "{}, seed {seed}", file.display());
        }
    }
}

#[test]
fn torn_files_are_errors() {
    for entry in std::fs::read_dir(fixtures().join("images")).unwrap() {
        let file = entry.unwrap().path();
        let whole = std::fs::read(&file).unwrap();
        for kept in [0, 1, 2, 11, 100, whole.len() / 2, whole.len() * 9 / 10] {
            let bytes = whole[..kept.min(whole.len() - 1)].to_vec();
            let torn = Encoded { bytes, name: file.clone() };
            let error = decode(&torn).err();
            assert!(
                matches!(error, Some(DataError::NotAnImage { .. })),
                "{} cut to {kept} bytes: {error:?}",
                file.display()
            );
        }
    }
}

#[test]
fn a_header_that_lies_takes_no_memory() {
    let mut bytes = std::fs::read(fixtures().join("images/420.jpg")).unwrap();
    let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    let huge = Encoded { bytes, name: "huge.jpg".into() };
    let error = decode(&huge).unwrap_err().to_string();
    assert!(error.contains("huge.jpg") && error.contains("65535 x 65535 pixels"), "{error}");
    let mut bytes = std::fs::read(fixtures().join("images/rgb.png")).unwrap();
    bytes[16..24].copy_from_slice(&[0x7f, 0, 0, 0, 0x7f, 0, 0, 0]);
    assert!(decode(&Encoded { bytes, name: "huge.png".into() }).is_err());
}
