//! MobileNetV2 (Sandler et al. 2018) and its relatives of seven stages of inverted residual blocks: EfficientNet-B0 (Tan
//! and Le 2019), EfficientNet-Lite0, MnasNet-A1 (Tan et al. 2018), as in timm.
//! Not here: MobileNetV3 (`mobilenet_v3.rs`).

use burn::tensor::Device;

use super::classifier::{Classifier, ClassifierParts};
use super::spec::ModelConfig;
use crate::blocks::{
    Activation, Block, ConvBnActConfig, ConvStyle, InvertedResidualConfig, SqueezeExciteConfig,
};

/// Consecutive blocks: the first one has the stride and changes the number of channels.
#[derive(Clone, Copy)]
struct Stage {
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
    /// Whether there is a squeeze, with a quarter of a block's input channels.
    squeeze: bool,
}

const fn stage(
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
) -> Stage {
    Stage { expansion, kernel, stride, channels, blocks, squeeze: false }
}

impl Stage {
    const fn squeezed(self) -> Self {
        Self { squeeze: true, ..self }
    }
}

/// The differences between these models.
struct Architecture {
    stages: [Stage; 7],
    stem: usize,
    head: usize,
    activation: Activation,
}

const MOBILENET_V2: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 3, 2, 32, 3),
    stage(6, 3, 2, 64, 4),
    stage(6, 3, 1, 96, 3),
    stage(6, 3, 2, 160, 3),
    stage(6, 3, 1, 320, 1),
];

/// Blocks of each stage of MobileNetV2 at EfficientNet-B0's cost.
const B0_BLOCKS: [usize; 7] = [1, 3, 4, 5, 4, 4, 1];

const EFFICIENTNET_B0: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];

const MNASNET_A1: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(3, 5, 2, 40, 3).squeezed(),
    stage(6, 3, 2, 80, 4),
    stage(6, 3, 1, 112, 2).squeezed(),
    stage(6, 5, 2, 160, 3).squeezed(),
    stage(6, 3, 1, 320, 1),
];

/// MobileNetV2 of width 1.
pub(crate) fn mobilenet_v2_100(config: &ModelConfig, device: &Device) -> Classifier {
    let activation = Activation::Relu6;
    build(&Architecture { stages: MOBILENET_V2, stem: 32, head: 1280, activation }, config, device)
}

/// MobileNetV2 of width 1.4.
pub(crate) fn mobilenet_v2_140(config: &ModelConfig, device: &Device) -> Classifier {
    let wider = |channels: usize| divisible_by_8(channels as f64 * 1.4);
    let stages = MOBILENET_V2.map(|stage| Stage { channels: wider(stage.channels), ..stage });
    let (stem, head, activation) = (wider(32), wider(1280), Activation::Relu6);
    build(&Architecture { stages, stem, head, activation }, config, device)
}

/// MobileNetV2 scaled to EfficientNet-B0's multiply-accumulates, with B0's squeeze and swish: the kind of
/// model that the method's source reports 77.4 % for. The source does not give its multipliers; width 1 and
/// these repeats are ours.
pub(crate) fn mobilenet_v2_b0(config: &ModelConfig, device: &Device) -> Classifier {
    let architecture = Architecture {
        stages: deepened().map(Stage::squeezed),
        stem: 32,
        head: 1280,
        activation: Activation::Silu,
    };
    build(&architecture, config, device)
}

/// [`mobilenet_v2_b0`] without B0's additions: no squeeze, and MobileNetV2's activation.
pub(crate) fn mobilenet_v2_b0_plain(config: &ModelConfig, device: &Device) -> Classifier {
    let activation = Activation::Relu6;
    build(&Architecture { stages: deepened(), stem: 32, head: 1280, activation }, config, device)
}

fn deepened() -> [Stage; 7] {
    std::array::from_fn(|i| Stage { blocks: B0_BLOCKS[i], ..MOBILENET_V2[i] })
}

/// EfficientNet-B0.
pub(crate) fn efficientnet_b0(config: &ModelConfig, device: &Device) -> Classifier {
    let stages = EFFICIENTNET_B0.map(Stage::squeezed);
    build(
        &Architecture { stages, stem: 32, head: 1280, activation: Activation::Silu },
        config,
        device,
    )
}

/// EfficientNet-Lite0: B0 without squeeze, and with an activation that suits quantization.
pub(crate) fn efficientnet_lite0(config: &ModelConfig, device: &Device) -> Classifier {
    let activation = Activation::Relu6;
    build(
        &Architecture { stages: EFFICIENTNET_B0, stem: 32, head: 1280, activation },
        config,
        device,
    )
}

/// MnasNet-A1, timm's `semnasnet_100`.
pub(crate) fn mnasnet_a1(config: &ModelConfig, device: &Device) -> Classifier {
    let activation = Activation::Relu;
    build(&Architecture { stages: MNASNET_A1, stem: 32, head: 1280, activation }, config, device)
}

/// The nearest multiple of 8 that is at least nine tenths of `channels` (timm's `make_divisible`).
pub(crate) fn divisible_by_8(channels: f64) -> usize {
    let nearest = ((channels + 4.0) / 8.0).floor().max(1.0) * 8.0;
    (if nearest < 0.9 * channels { nearest + 8.0 } else { nearest }) as usize
}

fn build(architecture: &Architecture, config: &ModelConfig, device: &Device) -> Classifier {
    let conv = |own: ConvBnActConfig| {
        own.with_activation(architecture.activation).with_style(config.style).init(device)
    };
    let mut c_in = architecture.stem;
    let stages = architecture.stages.iter().map(|stage| {
        let blocks = (0..stage.blocks).map(|index| {
            let block = block(stage, index, c_in, architecture.activation, config.style);
            c_in = stage.channels;
            Block::Inverted(block.init(device))
        });
        blocks.collect()
    });
    let stages: Vec<Vec<Block>> = stages.collect();
    let parts = ClassifierParts {
        stem: conv(
            ConvBnActConfig::new(config.input.channels, architecture.stem, 3).with_stride(2),
        ),
        max_pool: false,
        drop_path_depth: stages.iter().map(Vec::len).sum(),
        stages,
        head: Some(conv(ConvBnActConfig::new(c_in, architecture.head, 1))),
        hidden: None,
        features: architecture.head,
    };
    config.classifier(parts, device)
}

fn block(
    stage: &Stage,
    index: usize,
    c_in: usize,
    activation: Activation,
    style: ConvStyle,
) -> InvertedResidualConfig {
    let inside = c_in * stage.expansion;
    let squeeze = SqueezeExciteConfig { activation, ..SqueezeExciteConfig::new(inside, c_in / 4) };
    InvertedResidualConfig {
        c_in,
        inside,
        c_out: stage.channels,
        kernel: stage.kernel,
        stride: if index == 0 { stage.stride } else { 1 },
        activation,
        squeeze: stage.squeeze.then_some(squeeze),
        shortcut: true,
        style,
    }
}

/// The name of the parameter at `path` in timm.
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
            // The first stage has no widening convolution, and timm numbers the convolutions that exist.
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
    use super::{divisible_by_8, timm_name};

    #[test]
    fn widths_are_rounded_as_timm_does() {
        let widths =
            [32, 16, 24, 64, 96, 160, 320, 1280].map(|c| divisible_by_8(f64::from(c) * 1.4));
        assert_eq!(widths, [48, 24, 32, 88, 136, 224, 448, 1792]);
        // 11 would round to 8, less than nine tenths of it.
        assert_eq!(divisible_by_8(11.0), 16);
    }

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
