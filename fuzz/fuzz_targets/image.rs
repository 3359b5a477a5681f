//! Any bytes as an image on the disk: decoded and made ready for a model.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use fixnorm_data::{Interpolation, Normalization, Preprocessing, read_image};
use libfuzzer_sys::fuzz_target;

static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("fixnorm-fuzz-image-{}", std::process::id()))
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*PATH, bytes).expect("the temporary directory can be written");
    let Ok(image) = read_image(&PATH) else { return };
    let preprocessing = Preprocessing {
        shape: [9, 7, 3],
        crop_ratio: 0.875,
        interpolation: Interpolation::Bicubic,
        normalization: Normalization { mean: vec![0.5; 3], std: vec![0.5; 3] },
    };
    let mut values = vec![];
    preprocessing.apply(&image, &mut values);
    assert_eq!(values.len(), 9 * 7 * 3);
});
