//! Nets of inverted residuals: MobileNetV2 (Sandler et al. 2018) and EfficientNet-B0 (Tan and Le 2019),
//! as timm builds them with symmetric padding.

use burn::tensor::Device;

use crate::block::{Activation, ConvBnActConfig};
use crate::blocks::Block;
use crate::classifier::{Classifier, Input, Parts};
use crate::inverted::InvertedResidualConfig;

/// Blocks in a row: the first one has the stride and changes the channels.
struct Stage {
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
}

const fn stage(
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
) -> Stage {
    Stage { expansion, kernel, stride, channels, blocks }
}

const STEM: usize = 32;
const HEAD: usize = 1280;

const MOBILENET_V2: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 3, 2, 32, 3),
    stage(6, 3, 2, 64, 4),
    stage(6, 3, 1, 96, 3),
    stage(6, 3, 2, 160, 3),
    stage(6, 3, 1, 320, 1),
];

const EFFICIENTNET_B0: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];

/// MobileNetV2 of width 1.
pub fn mobilenet_v2(input: Input, device: &Device) -> Classifier {
    build(&MOBILENET_V2, Activation::Relu6, false, input, device)
}

/// EfficientNet-B0: a squeeze of a quarter of each block's input channels, and swish.
pub fn efficientnet_b0(input: Input, device: &Device) -> Classifier {
    build(&EFFICIENTNET_B0, Activation::Silu, true, input, device)
}

fn build(
    stages: &[Stage],
    activation: Activation,
    squeeze: bool,
    input: Input,
    device: &Device,
) -> Classifier {
    let conv = |config: ConvBnActConfig| config.with_activation(activation).init(device);
    let mut c_in = STEM;
    let stages = stages.iter().map(|stage| {
        let blocks = (0..stage.blocks).map(|block| {
            let config = InvertedResidualConfig {
                c_in,
                c_out: stage.channels,
                expansion: stage.expansion,
                kernel: stage.kernel,
                stride: if block == 0 { stage.stride } else { 1 },
                activation,
                squeeze: squeeze.then_some(c_in / 4),
                drop_path: 0.0,
            };
            c_in = stage.channels;
            Block::Inverted(config.init(device))
        });
        blocks.collect()
    });
    let stages: Vec<Vec<Block>> = stages.collect();
    let parts = Parts {
        stem: conv(ConvBnActConfig::new(input.channels, STEM, 3).with_stride(2)),
        max_pool: false,
        stages,
        head: Some(conv(ConvBnActConfig::new(c_in, HEAD, 1))),
        features: HEAD,
    };
    Classifier::new(parts, input, device)
}

/// The name that timm gives to the parameter at `path`.
pub(crate) fn timm_name(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    let leaf = match parts.pop() {
        Some("gamma") => "weight",
        Some("beta") => "bias",
        other => other.unwrap_or_default(),
    };
    match parts[..] {
        ["stem", "conv"] => format!("conv_stem.{leaf}"),
        ["stem", _] => format!("bn1.{leaf}"),
        ["head", "conv"] => format!("conv_head.{leaf}"),
        ["head", _] => format!("bn2.{leaf}"),
        ["fc"] => format!("classifier.{leaf}"),
        ["stages", stage, block, _, "squeeze", layer] => {
            format!("blocks.{stage}.{block}.se.conv_{layer}.{leaf}")
        }
        ["stages", stage, block, _, conv, part] => {
            // The first stage has no widening convolution, and timm counts what is there.
            let (name, number) = match (conv, stage) {
                ("depthwise", "0") => ("conv_dw", 1),
                ("project", "0") => ("conv_pw", 2),
                ("expand", _) => ("conv_pw", 1),
                ("depthwise", _) => ("conv_dw", 2),
                _ => ("conv_pwl", 3),
            };
            match part {
                "conv" => format!("blocks.{stage}.{block}.{name}.{leaf}"),
                _ => format!("blocks.{stage}.{block}.bn{number}.{leaf}"),
            }
        }
        _ => format!("{}.{leaf}", parts.join(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::timm_name;

    #[test]
    fn names_are_timms() {
        for (path, name) in [
            ("stem.conv.weight", "conv_stem.weight"),
            ("stem.norm.gamma", "bn1.weight"),
            ("stages.0.0.Inverted.depthwise.conv.weight", "blocks.0.0.conv_dw.weight"),
            ("stages.0.0.Inverted.project.norm.beta", "blocks.0.0.bn2.bias"),
            ("stages.2.1.Inverted.expand.conv.weight", "blocks.2.1.conv_pw.weight"),
            ("stages.2.1.Inverted.depthwise.norm.running_var", "blocks.2.1.bn2.running_var"),
            ("stages.2.1.Inverted.squeeze.reduce.bias", "blocks.2.1.se.conv_reduce.bias"),
            ("stages.2.1.Inverted.project.conv.weight", "blocks.2.1.conv_pwl.weight"),
            ("head.norm.running_mean", "bn2.running_mean"),
            ("fc.weight", "classifier.weight"),
        ] {
            assert_eq!(timm_name(path), name);
        }
    }
}
