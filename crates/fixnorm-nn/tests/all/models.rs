//! Compares every model of the registry with timm's or torchvision's: parameters, multiply-accumulates, and logits for
//! the same weights and images. `benches/peers/models_fixture.py` makes the expected values and states the formulas.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use fixnorm_nn::blocks::ConvStyle;
use fixnorm_nn::weights::{self, Fit, Metadata, WeightsFile};
use fixnorm_nn::{BlockExecution, Classifier, Input, ModelSpec, models};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

/// Largest deviation of a logit, relative to the largest of its batch. PyTorch itself deviates by up to 3.7e-5 in `f32` (the fixture's
/// `deviation_from_f64`).
const TOLERANCE: f64 = 1e-4;

fn hash(name: &str, index: u64) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    let mut z = name.wrapping_add(index).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

fn unit(name: &str, index: usize) -> f64 {
    (hash(name, index as u64) >> 11) as f64 * 2f64.powi(-52) - 1.0
}

fn offset_and_scale(name: &str, shape: &[usize]) -> (f64, f64) {
    match name {
        _ if shape.len() > 1 => {
            let fan_in: usize = shape[1..].iter().product();
            (0.0, (6.0 / fan_in as f64).sqrt())
        }
        _ if name.ends_with("running_var") => (1.0, 0.3),
        _ if name.ends_with("weight") => (1.0, 0.2),
        _ => (0.0, 0.1),
    }
}

/// `model` with every tensor by the formula, through a file with the reference's names.
fn filled(model: Classifier, spec: &'static ModelSpec) -> Classifier {
    let bytes = weights::to_safetensors(&model, spec, &Metadata::new()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // Counts of batches are integers, and stay out.
    let floats = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    let tensors = floats.map(|(name, view)| {
        let (offset, scale) = offset_and_scale(name, view.shape());
        let count: usize = view.shape().iter().product();
        let values = (0..count).map(|i| (offset + scale * unit(name, i)) as f32);
        let values: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (name, view.dtype(), view.shape().to_vec(), values)
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, dtype, shape, values)| {
        (*name, TensorView::new(*dtype, shape.clone(), values).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    let file = WeightsFile::from_safetensors(bytes).unwrap();
    weights::load(model, spec, &file, Fit::Exact).unwrap().model
}

/// Batch 0, `[n, h, w, c]`.
fn images(n: usize, side: usize, device: &Device) -> Tensor<4> {
    let mut pixels = Vec::with_capacity(n * side * side * 3);
    for image in 0..n {
        for (y, x) in (0..side * side).map(|i| (i / side, i % side)) {
            for plane in (0..3).map(|c| image * 3 + c) {
                let fine = unit("fine 0", (plane * side + y) * side + x);
                let coarse = unit("coarse 0", (plane * 64 + y / 16) * 64 + x / 16);
                pixels.push((0.5 * fine + coarse) as f32);
            }
        }
    }
    Tensor::from_data(TensorData::new(pixels, [n, side, side, 3]), device)
}

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/models.json")).unwrap()
}

/// Largest deviation of the logits from the recorded ones, relative to the largest.
fn deviation(what: &str, logits: Tensor<2>, expected: &Value) -> f64 {
    let found: Vec<f64> = logits.into_data().iter().collect();
    let expected = expected["values"].as_array().unwrap().iter();
    let expected: Vec<f64> = expected.map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |largest, v| largest.max(v.abs()));
    let mut worst = 0.0f64;
    for (found, expected) in found.iter().zip(&expected) {
        let apart = (found - expected).abs() / largest;
        // Written so that a NaN fails.
        assert!(apart <= TOLERANCE, "{what}: {found}, the reference has {expected}: {apart:.1e}");
        worst = worst.max(apart);
    }
    worst
}

/// Compares the model with the reference, at two resolutions and in both modes.
fn compare(name: &str) {
    let fixture = fixture();
    let (device, spec) = (Device::default().autodiff(), ModelSpec::find(name).unwrap());
    let number = |key: &str| fixture[key].as_u64().unwrap() as usize;
    let input = Input { channels: 3, classes: number("classes") };
    let momentum = fixture["momentum"].as_f64().unwrap();
    for expected in fixture["models"][name]["logits"].as_array().unwrap() {
        let side = expected["side"].as_u64().unwrap() as usize;
        let config = spec.config(input).with_style(ConvStyle { momentum, ..spec.style });
        let model = filled(config.init(0, &device), spec);
        let x = images(number("batch"), side, &device);
        let trained = [(); 3].map(|()| model.forward(x.clone()))[0].clone();
        let train = deviation(&format!("{name}, {side} px, training"), trained, &expected["train"]);
        let eval = model.valid().forward(x.inner());
        let eval = deviation(&format!("{name}, {side} px, evaluation"), eval, &expected["eval"]);
        println!("{name}, {side} px: off by {train:.1e} in training, {eval:.1e} in evaluation");
    }
}

/// One test a model, so that they run in parallel and fail by name.
macro_rules! models {
    ($($name:ident)*) => {
        mod logits_are_the_references {
            $(#[test] fn $name() { super::compare(stringify!($name)); })*
        }

        #[test]
        fn every_model_is_compared() {
            let compared = [$(stringify!($name)),*];
            let all: Vec<&str> = models().iter().map(|spec| spec.name).collect();
            assert_eq!(all, compared);
        }
    };
}

models! {
    resnet8 resnet20 resnet18 resnet50
    mobilenetv2_100 mobilenetv2_140 mobilenetv2_b0 mobilenetv2_b0_plain
    efficientnet_b0 efficientnet_lite0 tf_efficientnet_lite0
    semnasnet_100 mobilenetv3_large_100 shufflenet_v2_x1_0
}

#[test]
fn the_execution_of_blocks_belongs_to_a_model() {
    let (device, spec) = (Device::flex(), ModelSpec::find("mobilenetv3_large_100").unwrap());
    let model = spec.init(Input { channels: 3, classes: 4 }, 0, &device);
    let logits = |model: Classifier| -> Vec<f32> {
        model.forward(images(2, 33, &device)).into_data().iter().collect()
    };
    let own = logits(model.clone());
    assert_eq!(logits(model.clone().with_execution(BlockExecution::Fused)), own);
    let composed = logits(model.with_execution(BlockExecution::Composed));
    // The same function, of other operations.
    assert_ne!(composed, own);
    let largest = own.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
    for (own, composed) in own.iter().zip(&composed) {
        assert!((own - composed).abs() <= 1e-4 * largest, "{own} {composed}");
    }
}

#[test]
fn formula_is_the_scripts() {
    let fixture = fixture();
    let expected = fixture["hash_check"].as_array().unwrap().iter();
    let expected: Vec<u64> = expected.map(|v| v.as_str().unwrap().parse().unwrap()).collect();
    let found = [("", 0), ("fc.weight", 1), ("fine 2", 12345)].map(|(name, i)| hash(name, i));
    assert_eq!(found[..], expected[..]);
}

#[test]
fn counts_are_the_references() {
    let fixture = fixture();
    for spec in models() {
        let expected = &fixture["models"][spec.name];
        let (params, macs) = spec.count();
        assert_eq!(Some(params as u64), expected["params"].as_u64(), "{}", spec.name);
        // By forward hooks on every convolution and linear layer.
        let hooked = expected["macs"].as_u64().unwrap();
        let apart = (macs as f64 / hooked as f64 - 1.0).abs();
        assert!(apart < 0.005, "{}: {macs} multiply-accumulates, hooks count {hooked}", spec.name);
    }
}
