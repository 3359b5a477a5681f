//! A trained model as an ONNX file (opset 17).
//!
//! | file | contents |
//! |---|---|
//! | `graph.rs` | a graph that grows by whole operations |
//! | `emit.rs` | blocks and classifiers as operations |
//! | `proto.rs` | the messages of the format |
//!
//! Not here: reading ONNX.
//!
//! Batch norms are folded into the convolutions before them, in `f64`: inference needs no batch norm, every runtime would
//! fold it, and the graph has a third of the nodes. The batch size is open; the size of an image is fixed, since
//! TensorFlow's padding depends on it.

mod emit;
mod graph;
mod proto;
#[cfg(test)]
mod tests;

use burn::module::Module;
use prost::Message;

use graph::{Graph, Value};

use crate::Classifier;
use crate::weights::Metadata;

/// Version of the operators.
const OPSET: i64 = 17;
/// Version of the format that came with that opset.
const IR_VERSION: i64 = 8;

/// The model, with its running statistics, as the bytes of an ONNX file for images of `[height, width, channels]`.
///
/// # Shapes
/// Input `pictures`: `[n, c, h, w]`, normalized; output `logits`: `[n, classes]`.
///
/// # Panics
/// If the shape has other channels than the model, or no pixels.
pub fn to_onnx(model: &Classifier, shape: [usize; 3], metadata: &Metadata) -> Vec<u8> {
    let [h, w, c] = shape;
    // `valid` applies the last update of the running statistics, which Burn keeps aside.
    let model = model.valid();
    let mut graph = Graph::default();
    let logits = emit::classifier(&model, &mut graph, Value::input(h, w, c));
    let graph = graph.finish(shape, &logits);
    let entry = |(key, value): (&String, &String)| proto::StringStringEntry {
        key: key.clone(),
        value: value.clone(),
    };
    let model = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "fixnorm".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![proto::OperatorSetId { domain: String::new(), version: OPSET }],
        metadata_props: metadata.iter().map(entry).collect(),
    };
    model.encode_to_vec()
}
