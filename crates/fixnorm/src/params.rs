//! Parameters of a Burn module: path, shape and layer type of each trainable one.
//! Not here: their roles (`role.rs`).

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::SetupError;

/// A trainable parameter of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// Dotted path in the module tree, as Burn's parameter groups see it.
    pub path: String,
    /// Burn's identity of the parameter.
    pub id: ParamId,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// The struct that declares it, e.g. `Conv2d`.
    pub layer: String,
}

impl ParamInfo {
    /// Weights have two dimensions or more; gains and biases have one.
    pub fn is_weight(&self) -> bool {
        self.shape.len() >= 2
    }

    /// The dimension that counts output channels, for the layers whose layout is known.
    ///
    /// Burn's linear weight is `[d_in, d_out]`, a convolution's `[c_out, c_in/groups, ..]`, a
    /// transposed convolution's `[c_in, c_out/groups, ..]`: it is never guessed from the rank.
    pub fn channel_axis(&self) -> Option<usize> {
        match self.layer.as_str() {
            "Conv1d" | "Conv2d" | "Conv3d" | "DeformConv2d" => Some(0),
            "Linear" => Some(1),
            _ => None,
        }
        .filter(|_| self.is_weight())
    }
}

/// The path of the parameter that a visitor or mapper is at. Keep one in a field `path` of a
/// [`ModuleVisitor`] or `ModuleMapper` and call [`follow_path!`](crate::follow_path) in the implementation.
#[derive(Clone, Debug, Default)]
pub struct Path {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Path {
    /// Enters a field of a module; `container` is Burn's name of the module's kind.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    /// Leaves the field that was entered last.
    pub fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    /// The names of all fields entered, joined by dots.
    pub fn dotted(&self) -> String {
        self.names.join(".")
    }

    fn layer(&self) -> String {
        let structs = self.containers.iter().rev();
        let layer = structs.filter_map(|c| c.strip_prefix("Struct:")).next();
        layer.unwrap_or_default().to_owned()
    }
}

/// Implements `enter_module` and `exit_module` of Burn's visitors and mappers for a type with a field `path` of type
/// [`Path`](crate::params::Path).
#[macro_export]
macro_rules! follow_path {
    () => {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }
    };
}
pub use follow_path;

/// Lists the trainable float parameters of `module` in the order of its fields.
///
/// # Errors
/// [`SetupError::SharedParameter`] when one parameter stands at two places.
pub(crate) fn trainable<M: Module>(module: &M) -> Result<Vec<ParamInfo>, SetupError> {
    #[derive(Default)]
    struct Collector {
        path: Path,
        found: Vec<ParamInfo>,
    }
    impl ModuleVisitor for Collector {
        follow_path!();
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.found.push(ParamInfo {
                    path: self.path.dotted(),
                    id: param.id,
                    shape: param.lazy_shape().to_vec(),
                    layer: self.path.layer(),
                });
            }
        }
    }
    let mut collector = Collector::default();
    module.visit(&mut collector);
    for (index, param) in collector.found.iter().enumerate() {
        if let Some(first) = collector.found[..index].iter().find(|p| p.id == param.id) {
            return Err(SetupError::SharedParameter {
                first: first.path.clone(),
                second: param.path.clone(),
            });
        }
    }
    Ok(collector.found)
}
