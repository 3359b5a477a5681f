//! Devices by name: `cpu`, and for each backend of this build `NAME:INDEX`, as `cuda:0`.

#[cfg(feature = "gpu")]
use burn::tensor::DeviceType;
use burn::tensor::{Device, FloatDType};

use crate::TrainError;
use crate::recipe::PrecisionName;

const CPU: &str = "cpu";

/// The device of this name, without autodiff. `auto` is the best one present, and a backend's name its
/// first device.
///
/// # Errors
/// [`TrainError::NoDevice`] for one that this build or this machine does not have.
pub fn device(name: &str) -> Result<Device, TrainError> {
    let name = device_name(name);
    if name == CPU {
        // Not looking for others spares opening drivers.
        return Ok(Device::flex());
    }
    let mut present = present();
    match present.iter().position(|(present, _)| *present == name) {
        Some(index) => Ok(present.swap_remove(index).1),
        None => Err(TrainError::NoDevice { name, present: devices().join(", ") }),
    }
}

/// The device of this name, if it can store tensors in this precision.
///
/// # Errors
/// As [`device`], and [`TrainError::Unsupported`] for one that cannot.
pub(crate) fn device_for(name: &str, precision: PrecisionName) -> Result<Device, TrainError> {
    let device = device(name)?;
    if precision == PrecisionName::Bf16 && !device.supports_dtype(FloatDType::BF16) {
        let why = "it has no bf16; f32 it has".to_owned();
        return Err(TrainError::Unsupported { name: device_name(name), why });
    }
    Ok(device)
}

/// The name in full: `auto` is the best device present, and a backend's name its first device.
pub fn device_name(name: &str) -> String {
    match name {
        CPU => name.to_owned(),
        "auto" => best(),
        _ if name.contains(':') => name.to_owned(),
        _ => format!("{name}:0"),
    }
}

/// Names of all devices that this build finds on this machine, the CPU last.
pub fn devices() -> Vec<String> {
    present().into_iter().map(|(name, _)| name).collect()
}

fn present() -> Vec<(String, Device)> {
    let gpus = gpus().into_iter().flat_map(|(backend, devices)| {
        devices.into_iter().enumerate().map(move |(i, device)| (format!("{backend}:{i}"), device))
    });
    gpus.chain([(CPU.to_owned(), Device::flex())]).collect()
}

/// The first that is not a processor with the manners of a GPU.
fn best() -> String {
    let best = present().into_iter().find(|(_, device)| !is_software(device));
    best.map_or_else(|| CPU.to_owned(), |(name, _)| name)
}

/// Devices of each backend of this build, the better backends first.
#[cfg(feature = "gpu")]
fn gpus() -> Vec<(&'static str, Vec<Device>)> {
    let backends = [
        #[cfg(feature = "cuda")]
        ("cuda", DeviceType::Cuda),
        #[cfg(feature = "rocm")]
        ("rocm", DeviceType::Rocm),
        #[cfg(feature = "metal")]
        ("metal", DeviceType::Metal),
        #[cfg(feature = "vulkan")]
        ("vulkan", DeviceType::Vulkan),
        #[cfg(feature = "wgpu")]
        ("wgpu", DeviceType::Wgpu),
    ];
    let devices = |(name, kind)| (name, Device::enumerate(kind).into_iter().collect());
    backends.into_iter().map(devices).collect()
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Vec<(&'static str, Vec<Device>)> {
    vec![]
}

/// Whether a graphics interface computes on the CPU here, far slower than our kernels do.
fn is_software(device: &Device) -> bool {
    #[cfg(any(feature = "metal", feature = "vulkan", feature = "wgpu"))]
    {
        use burn::backend::{CubeDevice, DispatchDevice, WgpuDeviceKind};
        matches!(
            device.as_dispatch(),
            DispatchDevice::Cube(CubeDevice::Wgpu(wgpu)) if wgpu.kind == WgpuDeviceKind::Cpu
        )
    }
    #[cfg(not(any(feature = "metal", feature = "vulkan", feature = "wgpu")))]
    {
        let _ = device;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_in_full_and_unknown_ones_with_what_there_is() {
        assert_eq!(device_name("cuda"), "cuda:0");
        assert_eq!(device_name("cuda:1"), "cuda:1");
        assert_eq!(device_name(&device_name("auto")), device_name("auto"));
        assert_eq!(device(CPU).unwrap(), Device::flex());
        let error = device("abacus").unwrap_err().to_string();
        assert!(error.contains("no device `abacus:0`") && error.contains("cpu"), "{error}");
    }
}
