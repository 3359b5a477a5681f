//! MobileNetV3-Large (Howard et al. 2019) as in timm: the last widening convolution follows the pooling, and
//! squeezes have a piecewise linear gate.

use burn::nn::conv::Conv2dConfig;
use burn::tensor::Device;

use super::classifier::{Classifier, ClassifierParts};
use super::mobilenet::{self, divisible_by_8};
use super::spec::ModelConfig;
use crate::blocks::{
    Activation, Block, ConvBnActConfig, InvertedResidualConfig, SqueezeExciteConfig,
};

/// Channels inside, output channels, kernel, stride, and whether there is a squeeze.
type Row = (usize, usize, usize, usize, bool);

/// Table 1 of the paper. ReLU in the first three stages, hard swish after them.
const STAGES: [&[Row]; 6] = [
    &[(16, 16, 3, 1, false)],
    &[(64, 24, 3, 2, false), (72, 24, 3, 1, false)],
    &[(72, 40, 5, 2, true), (120, 40, 5, 1, true), (120, 40, 5, 1, true)],
    &[
        (240, 80, 3, 2, false),
        (200, 80, 3, 1, false),
        (184, 80, 3, 1, false),
        (184, 80, 3, 1, false),
    ],
    &[(480, 112, 3, 1, true), (672, 112, 3, 1, true)],
    &[(672, 160, 5, 2, true), (960, 160, 5, 1, true), (960, 160, 5, 1, true)],
];

/// MobileNetV3-Large of width 1.
pub(crate) fn large(config: &ModelConfig, device: &Device) -> Classifier {
    const STEM: usize = 16;
    const HEAD: usize = 960;
    const FEATURES: usize = 1280;
    let conv = |own: ConvBnActConfig| {
        own.with_activation(Activation::HardSwish).with_style(config.style).init(device)
    };
    let mut c_in = STEM;
    let stages = STAGES.iter().enumerate().map(|(stage, rows)| {
        let activation = if stage < 3 { Activation::Relu } else { Activation::HardSwish };
        let blocks = rows.iter().map(|&(inside, c_out, kernel, stride, squeezed)| {
            let squeeze = SqueezeExciteConfig {
                channels: inside,
                hidden: divisible_by_8(inside as f64 / 4.0),
                activation: Activation::Relu,
                gate: Activation::HardSigmoid,
            };
            let block = InvertedResidualConfig {
                c_in,
                inside,
                c_out,
                kernel,
                stride,
                activation,
                squeeze: squeezed.then_some(squeeze),
                shortcut: true,
                style: config.style,
            };
            c_in = c_out;
            Block::Inverted(block.init(device))
        });
        blocks.collect()
    });
    let stages: Vec<Vec<Block>> = stages.collect();
    let hidden = Conv2dConfig::new([HEAD, FEATURES], [1; 2]).init(device);
    let parts = ClassifierParts {
        stem: conv(ConvBnActConfig::new(config.input.channels, STEM, 3).with_stride(2)),
        max_pool: false,
        // timm counts the head among the blocks.
        drop_path_depth: stages.iter().map(Vec::len).sum::<usize>() + 1,
        stages,
        head: Some(conv(ConvBnActConfig::new(c_in, HEAD, 1))),
        hidden: Some((hidden, Activation::HardSwish)),
        features: FEATURES,
    };
    config.classifier(parts, device)
}

/// The name of the parameter at `path` in timm.
pub(crate) fn timm_name(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        ["head", "conv", leaf] => format!("blocks.6.0.conv.{leaf}"),
        ["head", "norm", "gamma"] => "blocks.6.0.bn1.weight".to_owned(),
        ["head", "norm", "beta"] => "blocks.6.0.bn1.bias".to_owned(),
        ["head", "norm", leaf] => format!("blocks.6.0.bn1.{leaf}"),
        ["hidden", leaf] => format!("conv_head.{leaf}"),
        _ => mobilenet::timm_name(path),
    }
}

#[cfg(test)]
mod tests {
    use super::timm_name;

    #[test]
    fn names_are_timms() {
        for (path, name) in [
            ("stem.norm.beta", "bn1.bias"),
            ("stages.0.0.Inverted.project.conv.weight", "blocks.0.0.conv_pw.weight"),
            ("stages.2.0.Inverted.squeeze.expand.weight", "blocks.2.0.se.conv_expand.weight"),
            ("head.conv.weight", "blocks.6.0.conv.weight"),
            ("head.norm.gamma", "blocks.6.0.bn1.weight"),
            ("head.norm.running_mean", "blocks.6.0.bn1.running_mean"),
            ("hidden.weight", "conv_head.weight"),
            ("hidden.bias", "conv_head.bias"),
            ("fc.weight", "classifier.weight"),
        ] {
            assert_eq!(timm_name(path), name);
        }
    }
}
