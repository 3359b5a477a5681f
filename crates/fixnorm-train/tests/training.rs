//! Five steps of training beside PyTorch: the same weights, the same batches, the same optimizer.
//! The numbers to meet are made by `benches/peers/models_fixture.py`, which states the formulas.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use fixnorm::{
    BaseUpdate, DecayKind, DecayTarget, FixNormConfig, Probe, Role, Roles, UpdateRule, WeightDecay,
};
use fixnorm_nn::weights::{self, Fit, Metadata, WeightsFile};
use fixnorm_nn::{Classifier, Input, ModelSpec, cross_entropy};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

/// Tolerance of a loss, relative.
const LOSS_TOLERANCE: f64 = 1e-3;
/// Tolerance of a running statistic, relative to the largest of its tensor. PyTorch itself is off by up to 4.6e-5 in
/// `f32` (the fixture's `deviation_from_f64`).
const STATISTIC_TOLERANCE: f64 = 1e-4;

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
        _ if name.ends_with("weight") => (0.5, 0.1),
        _ if name.ends_with("bias") && (name.contains("bn") || name.contains("downsample")) => {
            (1.0, 0.1)
        }
        _ => (0.0, 0.1),
    }
}

/// Name, shape and values of every tensor of floats of a model's file.
fn tensors(model: &Classifier, spec: &ModelSpec) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = weights::to_safetensors(model, spec, &Metadata::new()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // Counts of batches are whole numbers, and stay out.
    let floats = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    let tensors = floats.map(|(name, view)| {
        let values = view.data().chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (name.to_owned(), view.shape().to_vec(), values)
    });
    tensors.collect()
}

/// `model` with every tensor by the formula, through a file with the reference's names.
fn filled(model: Classifier, spec: &ModelSpec) -> Classifier {
    let filled = tensors(&model, spec).into_iter().map(|(name, shape, values)| {
        let (offset, scale) = offset_and_scale(&name, &shape);
        let values = (0..values.len()).map(|i| (offset + scale * unit(&name, i)) as f32);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (name, shape, bytes)
    });
    let filled: Vec<_> = filled.collect();
    let views = filled.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    let file = WeightsFile::from_safetensors(bytes).unwrap();
    weights::load(model, spec, &file, Fit::Exact).unwrap().model
}

/// The fixture, and the training that it states.
struct Setting {
    fixture: Value,
    device: Device,
}

impl Setting {
    fn new() -> Self {
        let fixture = serde_json::from_str(include_str!("fixtures/training.json")).unwrap();
        Self { fixture, device: Device::flex().autodiff() }
    }

    fn number(&self, key: &str) -> f64 {
        self.fixture[key].as_f64().unwrap()
    }

    fn count(&self, key: &str) -> usize {
        self.fixture[key].as_u64().unwrap() as usize
    }

    /// Batch `t`: images `[n, h, w, c]` and labels `[n]`.
    fn batch(&self, t: usize) -> (Tensor<4>, Tensor<1, Int>) {
        let (n, side) = (self.count("batch"), self.count("side"));
        let (fine, coarse) = (format!("fine {t}"), format!("coarse {t}"));
        let mut pixels = Vec::with_capacity(n * side * side * 3);
        for image in 0..n {
            for (y, x) in (0..side * side).map(|i| (i / side, i % side)) {
                for plane in (0..3).map(|c| image * 3 + c) {
                    let fine = unit(&fine, (plane * side + y) * side + x);
                    let coarse = unit(&coarse, (plane * 64 + y / 16) * 64 + x / 16);
                    pixels.push((0.5 * fine + coarse) as f32);
                }
            }
        }
        let classes = self.count("classes") as u64;
        let label = |i: usize| (hash(&format!("label {t}"), i as u64) % classes) as i64;
        let labels = TensorData::new((0..n).map(label).collect::<Vec<_>>(), [n]);
        (
            Tensor::from_data(TensorData::new(pixels, [n, side, side, 3]), &self.device),
            Tensor::from_data(labels, &self.device),
        )
    }

    fn loss(&self, model: &Classifier, t: usize) -> Tensor<1> {
        let (x, labels) = self.batch(t);
        cross_entropy(model.forward(x), labels, self.number("label_smoothing"))
    }

    /// Roles as the probe finds them: every convolution before a normalization is scale-invariant, the last
    /// layer is the head, and a squeeze's weights are neither. They do not depend on the images' size.
    fn found_roles(&self, model: &Classifier) -> Roles {
        let (x, labels) = self.batch(0);
        let x = x.slice(s![.., ..48, ..48, ..]);
        let loss =
            |model: &Classifier| cross_entropy(model.forward(x.clone()), labels.clone(), 0.0);
        let roles = Probe::new().run(model, loss).unwrap();
        for param in &roles.params {
            let expected = match param.path.as_str() {
                "fc.weight" => Role::Head,
                path if path.ends_with(".conv.weight") => Role::ScaleInvariant,
                _ => Role::Free,
            };
            assert_eq!(param.role, expected, "{}", param.path);
        }
        roles
    }

    /// The same roles given by the test, which spares a minute of probing a large model.
    fn given_roles(&self, model: &Classifier) -> Roles {
        let roles =
            [("*", Role::Free), ("*.conv.weight", Role::ScaleInvariant), ("fc.weight", Role::Head)];
        let probe = roles.into_iter().fold(Probe::new(), |p, (path, role)| p.with_role(path, role));
        probe.run(model, |_| Tensor::zeros([1], &self.device)).unwrap()
    }

    /// Repeats the fixture's run; says how far apart the two were.
    fn compare(&self, name: &str, run: &str, config: &FixNormConfig, roles: &Roles) {
        let spec = ModelSpec::find(name).unwrap();
        let expected = &self.fixture["runs"][name][run];
        let lr = self.fixture["lr"][name].as_f64().unwrap();
        let (mut model, mut optimizer) = config.init(self.model(name), roles).unwrap();
        let mut worst_loss = 0.0f64;
        for (t, expected) in expected["losses"].as_array().unwrap().iter().enumerate() {
            let loss = self.loss(&model, t);
            let (found, expected) = (loss.clone().into_scalar::<f64>(), expected.as_f64().unwrap());
            let apart = (found - expected).abs() / expected;
            // This way round, a NaN fails; so below.
            assert!(
                apart <= LOSS_TOLERANCE,
                "{name}, {run}, step {t}: loss {found}, PyTorch has {expected}"
            );
            worst_loss = worst_loss.max(apart);
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(lr, model, grads);
        }
        let tensors = tensors(&model, spec);
        let mut worst = 0.0f64;
        for statistic in expected["statistics"].as_array().unwrap() {
            let wanted = statistic["name"].as_str().unwrap();
            let (_, _, values) = tensors.iter().find(|(name, ..)| name == wanted).unwrap();
            let largest = statistic["largest"].as_f64().unwrap();
            let mut check = |what: String, found: f64, expected: f64, size: f64| {
                let apart = (found - expected).abs() / size;
                assert!(
                    apart <= STATISTIC_TOLERANCE,
                    "{name}, {run}, {what}: {found}, PyTorch has {expected}"
                );
                worst = worst.max(apart);
            };
            let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
            let expected = statistic["sum"].as_f64().unwrap();
            check(format!("sum of {wanted}"), sum, expected, largest * values.len() as f64);
            let sample = statistic["sample"].as_array().unwrap();
            for (i, expected) in sample.iter().enumerate() {
                let channel = values.len() * i / sample.len();
                let found = f64::from(values[channel]);
                check(format!("{wanted}[{channel}]"), found, expected.as_f64().unwrap(), largest);
            }
        }
        println!("{name}, {run}: loss off by {worst_loss:.1e}, running statistics by {worst:.1e}");
    }

    fn model(&self, name: &str) -> Classifier {
        let spec = ModelSpec::find(name).unwrap();
        let input = Input { channels: 3, classes: self.count("classes") };
        filled(spec.init(input, 0, &self.device), spec)
    }

    /// Both runs of a model.
    fn compare_both(&self, name: &str, roles: &Roles) {
        let base = BaseUpdate::sgd(self.number("momentum"));
        let decay = WeightDecay {
            rate: self.number("weight_decay"),
            kind: DecayKind::L2,
            target: DecayTarget::AllWeights,
        };
        self.compare(name, "sgd_wd", &FixNormConfig::decayed(base, decay), roles);
        let fixed = FixNormConfig::new(base).with_head(UpdateRule::row_rms(self.number("alpha")));
        self.compare(name, "fixnorm_sgd", &fixed, roles);
    }
}

#[test]
fn mobilenetv2_100_trains_as_in_pytorch() {
    let setting = Setting::new();
    let roles = setting.found_roles(&setting.model("mobilenetv2_100"));
    setting.compare_both("mobilenetv2_100", &roles);
}

#[test]
fn efficientnet_b0_trains_as_in_pytorch() {
    let setting = Setting::new();
    let roles = setting.found_roles(&setting.model("efficientnet_b0"));
    setting.compare_both("efficientnet_b0", &roles);
}

#[test]
fn resnet50_trains_as_in_pytorch() {
    let setting = Setting::new();
    let roles = setting.given_roles(&setting.model("resnet50"));
    setting.compare_both("resnet50", &roles);
}
