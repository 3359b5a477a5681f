//! Residual nets of He et al. 2015: those for small pictures (section 4.2: a 3×3 stem of 16 channels, three
//! stages of `n` basic blocks with 16, 32 and 64 channels, 6n + 2 layers), and ResNet-50 as torchvision has
//! it.

use burn::tensor::Device;

use crate::block::ConvBnActConfig;
use crate::blocks::Block;
use crate::classifier::{Classifier, Input, Parts};
use crate::residual::{BasicBlock, BottleneckConfig};

/// The net of 6·`blocks` + 2 layers.
pub fn cifar_resnet(blocks: usize, input: Input, device: &Device) -> Classifier {
    const WIDTHS: [usize; 3] = [16, 32, 64];
    let mut c_in = WIDTHS[0];
    let stages = WIDTHS.iter().enumerate().map(|(stage, &c_out)| {
        let stage = (0..blocks).map(|block| {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let block = BasicBlock::new(c_in, c_out, stride, device);
            c_in = c_out;
            Block::Basic(block)
        });
        stage.collect()
    });
    let stages = stages.collect();
    let stem = ConvBnActConfig::new(input.channels, WIDTHS[0], 3).init(device);
    let parts = Parts { stem, max_pool: false, stages, head: None, features: WIDTHS[2] };
    Classifier::new(parts, input, device)
}

/// ResNet-50.
pub fn resnet50(input: Input, device: &Device) -> Classifier {
    const STEM: usize = 64;
    const BLOCKS: [usize; 4] = [3, 4, 6, 3];
    let mut c_in = STEM;
    let stages = BLOCKS.iter().enumerate().map(|(stage, &blocks)| {
        let width = STEM << stage;
        let stage = (0..blocks).map(|block| {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let block = BottleneckConfig { c_in, width, stride }.init(device);
            c_in = 4 * width;
            Block::Bottleneck(block)
        });
        stage.collect()
    });
    let stages = stages.collect();
    let stem = ConvBnActConfig::new(input.channels, STEM, 7).with_stride(2).init(device);
    let parts = Parts { stem, max_pool: true, stages, head: None, features: c_in };
    Classifier::new(parts, input, device)
}

/// The name that timm's and torchvision's residual nets give to the parameter at `path`.
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
    fn names_are_those_of_the_reference_nets() {
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
