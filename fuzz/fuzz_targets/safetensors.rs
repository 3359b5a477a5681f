//! Any bytes as a safetensors file: opened, every tensor read, loaded into a model as far as it fits.
#![no_main]

use burn::tensor::Device;
use fixnorm_nn::weights::input;
use fixnorm_nn::weights::{Fit, WeightsFile, load};
use fixnorm_nn::{Input, ModelSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = WeightsFile::from_safetensors(bytes.to_vec()) else { return };
    for name in file.names() {
        let size: usize = file.shape(name).expect("a name of the file").iter().product();
        if let Ok(values) = file.floats(name) {
            assert_eq!(values.len(), size);
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
    let spec = ModelSpec::find("resnet8").expect("a model");
    // Most files have no tensor of a model, and making one takes time.
    if input(spec, &file).is_some() {
        let model = spec.init(Input { channels: 1, classes: 2 }, 0, &Device::flex());
        let _ = load(model, spec, &file, Fit::Partial);
    }
});
