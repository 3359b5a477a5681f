//! Devices by name.

use burn::tensor::Device;

use crate::TrainError;

/// The device of this name, without autodiff. `auto` is the best one present.
///
/// # Errors
/// [`TrainError::NoDevice`] for one that this build does not reach.
pub fn device(name: &str) -> Result<Device, TrainError> {
    match name {
        "cpu" | "auto" => Ok(Device::flex()),
        _ => Err(TrainError::NoDevice { name: name.to_owned() }),
    }
}
