//! ResNets of He et al. 2015: those for small images (section 4.2: a 3×3 stem of 16 channels, three
//! stages of `n` basic blocks with 16, 32 and 64 channels, 6n + 2 layers), and ResNet-18 and ResNet-50 as in
//! torchvision.

use burn::tensor::Device;

use super::classifier::{Classifier, ClassifierParts};
use super::spec::ModelConfig;
use crate::blocks::{BasicBlockConfig, Block, BottleneckConfig, ConvBnActConfig, Narrowing};

/// The ResNet of 6·`blocks` + 2 layers for small images.
pub(crate) fn cifar(blocks: usize, config: &ModelConfig, device: &Device) -> Classifier {
    const WIDTH: usize = 16;
    let stem = ConvBnActConfig::new(config.input.channels, WIDTH, 3);
    build(stem, &[blocks; 3], config, device, |c_in, stage, stride| {
        let (c_out, narrowing) = (WIDTH << stage, Narrowing::Subsample);
        let block = BasicBlockConfig { c_in, c_out, stride, narrowing, style: config.style };
        (Block::Basic(block.init(device)), c_out)
    })
}

/// ResNet-18.
pub(crate) fn resnet18(config: &ModelConfig, device: &Device) -> Classifier {
    build(wide_stem(config), &[2; 4], config, device, |c_in, stage, stride| {
        let (c_out, narrowing) = (STEM << stage, Narrowing::Project);
        let block = BasicBlockConfig { c_in, c_out, stride, narrowing, style: config.style };
        (Block::Basic(block.init(device)), c_out)
    })
}

/// ResNet-50.
pub(crate) fn resnet50(config: &ModelConfig, device: &Device) -> Classifier {
    build(wide_stem(config), &[3, 4, 6, 3], config, device, |c_in, stage, stride| {
        let width = STEM << stage;
        let block = BottleneckConfig { c_in, width, stride, style: config.style };
        (Block::Bottleneck(block.init(device)), 4 * width)
    })
}

/// Channels of the stem for large images, and of the first stage's 3×3 convolutions.
const STEM: usize = 64;

fn wide_stem(config: &ModelConfig) -> ConvBnActConfig {
    ConvBnActConfig::new(config.input.channels, STEM, 7).with_stride(2)
}

/// `block` makes a block from its input channels, its stage and its stride, and returns it with its output channels.
fn build(
    stem: ConvBnActConfig,
    blocks: &[usize],
    config: &ModelConfig,
    device: &Device,
    block: impl Fn(usize, usize, usize) -> (Block, usize),
) -> Classifier {
    let mut c_in = stem.c_out;
    let stages = blocks.iter().enumerate().map(|(stage, &blocks)| {
        let blocks = (0..blocks).map(|index| {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let (block, c_out) = block(c_in, stage, stride);
            c_in = c_out;
            block
        });
        blocks.collect()
    });
    let stages = stages.collect();
    let parts = ClassifierParts {
        max_pool: stem.stride > 1,
        stem: stem.with_style(config.style).init(device),
        stages,
        head: None,
        hidden: None,
        features: c_in,
        drop_path_depth: blocks.iter().sum::<usize>() - 1,
    };
    config.classifier(parts, device)
}

/// The name of the parameter at `path` in timm's and torchvision's ResNets.
pub(crate) fn timm_name(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    let leaf = match parts.pop() {
        Some("gamma") => "weight",
        Some("beta") => "bias",
        other => other.unwrap_or_default(),
    };
    match parts[..] {
        ["stem", "conv"] => format!("conv1.{leaf}"),
        ["stem", _] => format!("bn1.{leaf}"),
        ["stages", stage, block, _, conv, part] => {
            let stage =
                stage.parse::<usize>().map_or_else(|_| stage.to_owned(), |s| (s + 1).to_string());
            let own = match (conv, part) {
                ("projection", "conv") => "downsample.0".to_owned(),
                ("projection", _) => "downsample.1".to_owned(),
                (_, "conv") => conv.to_owned(),
                _ => format!("bn{}", conv.trim_start_matches("conv")),
            };
            format!("layer{stage}.{block}.{own}.{leaf}")
        }
        _ => format!("{}.{leaf}", parts.join(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::timm_name;

    #[test]
    fn names_are_the_references() {
        for (path, name) in [
            ("stem.conv.weight", "conv1.weight"),
            ("stem.norm.gamma", "bn1.weight"),
            ("stages.1.0.Basic.conv2.conv.weight", "layer2.0.conv2.weight"),
            ("stages.1.0.Basic.conv2.norm.beta", "layer2.0.bn2.bias"),
            ("stages.2.1.Basic.conv1.norm.running_var", "layer3.1.bn1.running_var"),
            ("stages.0.0.Bottleneck.projection.conv.weight", "layer1.0.downsample.0.weight"),
            ("stages.0.0.Bottleneck.projection.norm.gamma", "layer1.0.downsample.1.weight"),
            ("fc.weight", "fc.weight"),
            ("fc.bias", "fc.bias"),
        ] {
            assert_eq!(timm_name(path), name);
        }
    }
}
