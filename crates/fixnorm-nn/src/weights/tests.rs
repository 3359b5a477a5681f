//! Files in and out: what fits, what does not, and what no file may do.

use std::io::Write;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::classifier::{Classifier, Input};
use crate::registry::ModelSpec;

const INPUT: Input = Input { channels: 1, classes: 5 };

fn spec() -> &'static ModelSpec {
    ModelSpec::find("resnet8").unwrap()
}

fn saved(input: Input, seed: u64) -> Vec<u8> {
    let model = spec().init(input, seed, &Device::flex());
    to_safetensors(&model, spec(), &Metadata::new()).unwrap()
}

fn load_into(seed: u64, bytes: Vec<u8>, fit: Fit) -> Result<Loaded, WeightsError> {
    let file = WeightsFile::from_safetensors(bytes)?;
    load(spec().init(INPUT, seed, &Device::flex()), spec(), &file, fit)
}

/// Names, shapes and values of the model's tensors, counters left out.
fn tensors(model: &Classifier) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = to_safetensors(model, spec(), &Metadata::new()).unwrap();
    let file = WeightsFile::from_safetensors(bytes).unwrap();
    let names = file.names().filter(|name| !name.ends_with("num_batches_tracked"));
    names
        .map(|name| {
            (name.to_owned(), file.shape(name).unwrap().to_vec(), file.floats(name).unwrap())
        })
        .collect()
}

/// A safetensors file of tensors of one type.
fn written(dtype: Dtype, tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn round_trip_gives_the_same_logits_with_running_statistics() {
    let device = Device::flex().autodiff();
    let model = spec().init(INPUT, 1, &device);
    let pictures =
        |device: &Device| Tensor::<4>::random([3, 9, 11, 1], Distribution::Default, device);
    for _ in 0..3 {
        model.forward(pictures(&device));
    }
    let metadata = Metadata::from([("classes".to_owned(), "a,b".to_owned())]);
    let bytes = to_safetensors(&model, spec(), &metadata).unwrap();
    let file = WeightsFile::from_safetensors(bytes.clone()).unwrap();
    assert_eq!(file.metadata(), &metadata);
    assert_eq!(file.shape("bn1.num_batches_tracked"), Some(&[][..]));

    let loaded = load(spec().init(INPUT, 2, &device), spec(), &file, Fit::Exact).unwrap();
    assert!(loaded.left.is_empty());
    let x = pictures(&device.clone().inner());
    let expected = model.valid().forward(x.clone()).into_data();
    assert_eq!(loaded.model.valid().forward(x).into_data(), expected);
    assert_eq!(to_safetensors(&loaded.model, spec(), &metadata).unwrap(), bytes);
}

#[test]
fn mismatch_names_every_tensor() {
    let large = ModelSpec::find("resnet20").unwrap();
    let other = Input { channels: 3, classes: 4 };
    let model = large.init(other, 1, &Device::flex());
    let bytes = to_safetensors(&model, large, &Metadata::new()).unwrap();
    let error = load_into(1, bytes, Fit::Exact).unwrap_err();
    let WeightsError::Mismatch { mismatch, .. } = &error else {
        panic!("{error}");
    };
    assert!(mismatch.missing.is_empty());
    // Two more blocks in each of three stages, of two convolutions and two norms of four.
    assert_eq!(mismatch.unexpected.len(), 3 * 2 * (2 + 2 * 4));
    assert_eq!(mismatch.misshapen.len(), 3, "{mismatch:?}");
    let text = error.to_string();
    assert!(
        text.contains("layer1.1.conv1.weight")
            && text.contains("fc.weight (expected [5, 64], found [4, 64])")
    );
}

#[test]
fn a_head_for_other_classes_is_left_and_nothing_else() {
    let bytes = saved(Input { classes: 7, ..INPUT }, 1);
    assert!(matches!(load_into(2, bytes.clone(), Fit::Exact), Err(WeightsError::Mismatch { .. })));
    let loaded = load_into(2, bytes, Fit::OtherHead).unwrap();
    let left: Vec<_> = loaded.left.misshapen.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(left, ["fc.weight", "fc.bias"]);
    let (own, file) =
        (spec().init(INPUT, 2, &Device::flex()), spec().init(INPUT, 1, &Device::flex()));
    let (own, file) = (tensors(&own), tensors(&file));
    for ((tensor, own), file) in tensors(&loaded.model).iter().zip(&own).zip(&file) {
        let expected = if tensor.0.starts_with("fc.") { own } else { file };
        assert_eq!(tensor, expected);
    }
    // Another stem is another model.
    let bytes = saved(Input { channels: 3, classes: 7 }, 1);
    assert!(matches!(load_into(2, bytes, Fit::OtherHead), Err(WeightsError::Mismatch { .. })));
}

#[test]
fn partial_weights_take_what_fits() {
    let device = Device::flex();
    let some: Vec<_> = tensors(&spec().init(INPUT, 1, &device))
        .into_iter()
        .filter(|(name, ..)| name.starts_with("layer2."))
        .map(|(name, shape, values)| {
            (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let bytes = written(Dtype::F32, &some);
    let loaded = load_into(2, bytes, Fit::Partial).unwrap();
    assert_eq!(loaded.left.missing.len(), tensors(&loaded.model).len() - some.len());
    let own = tensors(&spec().init(INPUT, 2, &device));
    let changed: Vec<_> =
        tensors(&loaded.model).into_iter().zip(own).filter(|(new, old)| new != old).collect();
    assert!(!changed.is_empty() && changed.iter().all(|(new, _)| new.0.starts_with("layer2.")));

    let none = written(Dtype::F32, &[("foreign".to_owned(), vec![1], vec![0; 4])]);
    assert!(matches!(load_into(2, none, Fit::Partial), Err(WeightsError::Mismatch { .. })));
}

#[test]
fn every_kind_of_float_is_read() {
    let values = [1.5f32, -0.25, 1024.0];
    let bytes = |dtype| -> Vec<u8> {
        let each = values.iter();
        match dtype {
            Dtype::F64 => each.flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            Dtype::F32 => each.flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => each.flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            _ => each.flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        }
    };
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        let file = written(dtype, &[("a".to_owned(), vec![3, 1], bytes(dtype))]);
        let file = WeightsFile::from_safetensors(file).unwrap();
        assert_eq!(file.floats("a").unwrap(), values, "{dtype:?}");
    }
    let whole = written(Dtype::I32, &[("a".to_owned(), vec![3], vec![0; 12])]);
    let error = WeightsFile::from_safetensors(whole).unwrap().floats("a").unwrap_err();
    assert_eq!(error.to_string(), "tensor a has type I32; expected F32, F16, BF16 or F64");
}

#[test]
fn wrappers_are_taken_off() {
    let one = |names: &[&str]| {
        let tensors: Vec<_> =
            names.iter().map(|name| ((*name).to_owned(), vec![1], vec![0; 4])).collect();
        let file = WeightsFile::from_safetensors(written(Dtype::F32, &tensors)).unwrap();
        let found: Vec<String> = file.names().map(str::to_owned).collect();
        (file.wrapper(), found.join(" "))
    };
    assert_eq!(one(&["a.weight", "b"]), (None, "a.weight b".to_owned()));
    assert_eq!(one(&["module.a", "module.b"]), (None, "a b".to_owned()));
    assert_eq!(one(&["module.a", "b"]), (None, "b module.a".to_owned()));
    assert_eq!(
        one(&["state_dict.module.a", "optimizer.x", "epoch"]),
        (Some("state_dict"), "a".to_owned())
    );
    assert_eq!(one(&["model.a", "model_ema.b"]), (Some("model_ema"), "b".to_owned()));
    assert_eq!(one(&["module._orig_mod.a"]), (None, "a".to_owned()));
    // A name that only begins like a wrapper.
    assert_eq!(one(&["network.a"]), (None, "network.a".to_owned()));
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut all: Vec<_> = tensors(&spec().init(INPUT, 1, &Device::flex()));
    let broken = all.iter_mut().find(|(name, ..)| name == "layer1.0.bn2.running_var").unwrap();
    broken.2[3] = f32::NAN;
    broken.2[5] = f32::INFINITY;
    let bytes = |v: &Vec<f32>| v.iter().flat_map(|v| v.to_le_bytes()).collect();
    let all: Vec<_> = all
        .iter()
        .map(|(name, shape, values)| (name.clone(), shape.clone(), bytes(values)))
        .collect();
    for fit in [Fit::Exact, Fit::Partial] {
        let error = load_into(1, written(Dtype::F32, &all), fit).unwrap_err().to_string();
        assert_eq!(error, "tensor layer1.0.bn2.running_var: 2 of its 16 values are not finite");
    }
}

#[test]
fn the_model_is_known_by_its_tensors() {
    let file = WeightsFile::from_safetensors(saved(INPUT, 1)).unwrap();
    let found: Vec<_> = load::fitting_models(&file).iter().map(|spec| spec.name).collect();
    assert_eq!(found, ["resnet8"]);
    assert_eq!(load::input(spec(), &file), Some(INPUT));
    let other = written(Dtype::F32, &[("a".to_owned(), vec![1], vec![0; 4])]);
    let other = WeightsFile::from_safetensors(other).unwrap();
    assert!(load::fitting_models(&other).is_empty());
    assert_eq!(load::input(spec(), &other), None);
}

/// What opening a file of these bytes says.
fn opened(name: &str, bytes: &[u8]) -> Result<WeightsFile, WeightsError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    WeightsFile::open(&path)
}

#[test]
fn torn_and_lying_safetensors_are_refused() {
    let whole = saved(INPUT, 1);
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let text = String::from_utf8(whole[8..8 + header].to_vec()).unwrap();
    let with_header = |text: &str| {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &whole[8 + header..]].concat()
    };
    let huge = text.replacen("\"shape\":[5,64]", "\"shape\":[4611686018427387904,64]", 1);
    let beyond = text.replacen("[0,", "[99999999999,", 1);
    assert!(huge != text && beyond != text);
    for bad in [
        whole[..whole.len() - 1].to_vec(),
        whole[..8 + header / 2].to_vec(),
        whole[..5].to_vec(),
        [&whole[..], &[0]].concat(),
        with_length(u64::MAX),
        with_length(99_999_999),
        with_length(header as u64 - 1),
        with_header(&huge),
        with_header(&beyond),
        b"PK\x03\x04 not this".to_vec(),
    ] {
        let error = opened("a.safetensors", &bad).unwrap_err();
        assert!(error.to_string().starts_with("not a safetensors file: "), "{error}");
    }
    for name in ["a.safetensors", "a.pth"] {
        let error = opened(name, b"").unwrap_err();
        assert_eq!(error.to_string(), "not a weights file: it is empty");
    }
    let error = opened("a.bin", b"neither one nor the other").unwrap_err();
    assert!(
        error.to_string().starts_with("not a safetensors file or PyTorch checkpoint"),
        "{error}"
    );
}
