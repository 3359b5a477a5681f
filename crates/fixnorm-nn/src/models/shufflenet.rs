//! ShuffleNetV2 (Ma et al. 2018) as in torchvision.

use burn::tensor::Device;

use super::classifier::{Classifier, ClassifierParts};
use super::spec::ModelConfig;
use crate::blocks::{Block, ConvBnActConfig, ShuffleUnitConfig};

/// ShuffleNetV2 of width 1.
pub(crate) fn x1_0(config: &ModelConfig, device: &Device) -> Classifier {
    const STEM: usize = 24;
    /// Channels and units of a stage.
    const STAGES: [(usize, usize); 3] = [(116, 4), (232, 8), (464, 4)];
    const HEAD: usize = 1024;
    let conv = |own: ConvBnActConfig| own.with_style(config.style).init(device);
    let mut c_in = STEM;
    let stages = STAGES.iter().map(|&(c_out, units)| {
        let units = (0..units).map(|unit| {
            let stride = if unit == 0 { 2 } else { 1 };
            let unit = ShuffleUnitConfig { c_in, c_out, stride, style: config.style };
            c_in = c_out;
            Block::Shuffle(unit.init(device))
        });
        units.collect()
    });
    let stages = stages.collect();
    let parts = ClassifierParts {
        stem: conv(ConvBnActConfig::new(config.input.channels, STEM, 3).with_stride(2)),
        max_pool: true,
        stages,
        head: Some(conv(ConvBnActConfig::new(c_in, HEAD, 1))),
        hidden: None,
        features: HEAD,
        drop_path_depth: 1,
    };
    config.classifier(parts, device)
}

/// The name of the parameter at `path` in torchvision.
pub(crate) fn torchvision_name(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    let leaf = match parts.pop() {
        Some("gamma") => "weight",
        Some("beta") => "bias",
        other => other.unwrap_or_default(),
    };
    // Layers are numbered in their order, activations included.
    let after = |part: &str| usize::from(part != "conv");
    match parts[..] {
        ["stem", part] => format!("conv1.{}.{leaf}", after(part)),
        ["head", part] => format!("conv5.{}.{leaf}", after(part)),
        ["stages", stage, unit, _, branch, conv, part] => {
            let (branch, first) = match (branch, conv) {
                ("left", "depthwise") => (1, 0),
                ("left", _) => (1, 2),
                (_, "expand") => (2, 0),
                (_, "depthwise") => (2, 3),
                _ => (2, 5),
            };
            let stage =
                stage.parse::<usize>().map_or_else(|_| stage.to_owned(), |s| (s + 2).to_string());
            format!("stage{stage}.{unit}.branch{branch}.{}.{leaf}", first + after(part))
        }
        _ => format!("{}.{leaf}", parts.join(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::torchvision_name;

    #[test]
    fn names_are_torchvisions() {
        for (path, name) in [
            ("stem.conv.weight", "conv1.0.weight"),
            ("stages.0.0.Shuffle.left.depthwise.norm.gamma", "stage2.0.branch1.1.weight"),
            ("stages.0.0.Shuffle.left.project.conv.weight", "stage2.0.branch1.2.weight"),
            ("stages.1.3.Shuffle.right.expand.conv.weight", "stage3.3.branch2.0.weight"),
            ("stages.1.3.Shuffle.right.depthwise.conv.weight", "stage3.3.branch2.3.weight"),
            ("stages.2.1.Shuffle.right.project.norm.running_var", "stage4.1.branch2.6.running_var"),
            ("head.norm.beta", "conv5.1.bias"),
            ("fc.bias", "fc.bias"),
        ] {
            assert_eq!(torchvision_name(path), name);
        }
    }
}
