//! Operations of augmentation policies against Pillow's, from `benches/peers/augment_fixture.py`.

use fixnorm_data::{Image, Interpolation, Op};
use serde_json::Value;

/// The fixture's image, from a formula that the script has too.
fn image(height: usize, width: usize, channels: usize) -> Image {
    let pixel = |i: usize| {
        let (y, x, c) = (i / channels / width, i / channels % width, i % channels);
        let ramp = (x * 3 + y * 2 + c * 40) % 256;
        let noise = ((i as u32).wrapping_mul(2_654_435_761) >> 26) as usize;
        (30 + (ramp * 3 / 4 + noise) % 200) as u8
    };
    let pixels = (0..height * width * channels).map(pixel).collect();
    Image { height, width, channels, pixels }
}

fn op(name: &str, strength: f64) -> Op {
    match name {
        "identity" => Op::Identity,
        "auto_contrast" => Op::AutoContrast,
        "equalize" => Op::Equalize,
        "invert" => Op::Invert,
        "posterize" => Op::Posterize(strength as u32),
        "solarize" => Op::Solarize(strength),
        "solarize_add" => Op::SolarizeAdd(strength as u8),
        "color" => Op::Color(strength as f32),
        "contrast" => Op::Contrast(strength as f32),
        "brightness" => Op::Brightness(strength as f32),
        "sharpness" => Op::Sharpness(strength as f32),
        "hue" => Op::Hue(strength),
        "shear_x" => Op::ShearX(strength),
        "shear_y" => Op::ShearY(strength),
        "translate_x" => Op::TranslateX(strength),
        "translate_y" => Op::TranslateY(strength),
        "rotate" => Op::Rotate(strength),
        other => panic!("{other}"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn operations_are_pillows_to_the_byte() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/augment.json")).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let fill: Vec<u8> =
        fixture["fill"].as_array().unwrap().iter().map(|value| number(value) as u8).collect();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3 * 81);
    let mut wrong = vec![];
    for case in cases {
        let size: Vec<usize> = case["image"].as_array().unwrap().iter().map(number).collect();
        let full = case["op"].as_str().unwrap();
        let (name, by) = full.split_once(' ').unwrap_or((full, "bilinear"));
        let by = match by {
            "bilinear" => Interpolation::Bilinear,
            "bicubic" => Interpolation::Bicubic,
            other => panic!("{other}"),
        };
        let mut changed = image(size[0], size[1], size[2]);
        op(name, case["strength"].as_f64().unwrap_or_default()).apply(
            &mut changed,
            by,
            [fill[0], fill[1], fill[2]],
        );
        let pillows = bytes(case["pixels"].as_str().unwrap());
        assert_eq!(changed.pixels.len(), pillows.len());
        let differences =
            changed.pixels.iter().zip(&pillows).map(|(own, other)| own.abs_diff(*other));
        let worst = differences.clone().max().unwrap();
        if worst > 0 {
            let count = differences.filter(|&difference| difference > 0).count();
            wrong.push(format!(
                "{full} {} of {size:?}: {count} bytes, by up to {worst}",
                case["strength"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
