//! Preprocessing against timm's evaluation transform (Pillow underneath), from
//! `benches/peers/preprocessing_fixture.py`.

use fixnorm_data::{Image, Interpolation, Normalization, Preprocessing};
use serde_json::Value;

/// The fixture's image: a soft ramp with hard noise on it, from a formula that the script has too.
fn image(height: usize, width: usize, channels: usize) -> Image {
    let pixel = |i: usize| {
        let (y, x, c) = (i / channels / width, i / channels % width, i % channels);
        let ramp = (x * 3 + y * 2 + c * 40) % 256;
        let noise = ((i as u32).wrapping_mul(2_654_435_761) >> 26) as usize;
        ((ramp + noise) % 256) as u8
    };
    let pixels = (0..height * width * channels).map(pixel).collect();
    Image { height, width, channels, pixels }
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn tensors_equal_timms() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/preprocessing.json")).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 8);
    for case in cases {
        let floats = |key: &str| -> Vec<f32> {
            let values = case[key].as_array().unwrap().iter();
            values.map(|value| value.as_f64().unwrap() as f32).collect()
        };
        let &[height, width, channels] = &sizes(&case["image"])[..] else { panic!("{case}") };
        let side = case["side"].as_u64().unwrap() as usize;
        let preprocessing = Preprocessing {
            shape: [side, side, 3],
            crop_ratio: case["crop_ratio"].as_f64().unwrap(),
            interpolation: match case["interpolation"].as_str().unwrap() {
                "bilinear" => Interpolation::Bilinear,
                "bicubic" => Interpolation::Bicubic,
                other => panic!("{other}"),
            },
            normalization: Normalization { mean: floats("mean"), std: floats("std") },
        };
        let name = format!("{height}x{width}x{channels} to {side}, {}", case["interpolation"]);
        let image = image(height, width, channels);
        let cropped = preprocessing.crop(&image).pixels;
        let timms = bytes(case["pixels"].as_str().unwrap());
        assert_eq!(cropped.len(), timms.len(), "{name}");
        let worst =
            cropped.iter().zip(&timms).map(|(own, timm)| own.abs_diff(*timm)).max().unwrap();
        // Pillow 13 resizes some tall images by columns first.
        let allowed = u8::from(height > 2 * width);
        assert!(worst <= allowed, "{name}: {worst} of 255");
        let mut out = vec![];
        preprocessing.apply(&image, &mut out);
        let tolerance = 2e-6 + f32::from(allowed) / 255.0 / floats("std")[0];
        for (own, timm) in out.iter().zip(floats("first_values")) {
            assert!((own - timm).abs() < tolerance, "{name}: {own}, {timm}");
        }
    }
}
