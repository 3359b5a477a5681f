//! The position of a visitor or mapper in the module tree.

/// Names and containers from the root to the current parameter.
#[derive(Default)]
pub(crate) struct ModulePath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    /// The names joined by dots.
    pub(crate) fn dotted(&self) -> String {
        self.names.join(".")
    }

    /// The parameter's own name.
    pub(crate) fn leaf(&self) -> Option<&str> {
        self.names.last().map(String::as_str)
    }

    /// Returns whether one of the names is `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Returns whether a parameter of rank `D` is the weight of a linear layer, which PyTorch stores transposed.
    pub(crate) fn is_linear_weight<const D: usize>(&self) -> bool {
        D == 2 && self.layer() == Some("Linear")
    }

    /// The struct that declares the parameter, e.g. `Conv2d`.
    pub(crate) fn layer(&self) -> Option<&str> {
        self.containers.last()?.strip_prefix("Struct:")
    }
}

/// Implements the path callbacks of Burn's visitors and mappers for a struct with a `path` field.
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
pub(crate) use follow_path;
