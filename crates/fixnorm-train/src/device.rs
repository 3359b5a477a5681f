//! Devices by name: `cpu`, and for each backend of this build `NAME:INDEX`, as `cuda:0`; several as `cuda:0,cuda:1`.

#[cfg(feature = "gpu")]
use burn::tensor::DeviceType;
use burn::tensor::{Device, FloatDType};

use crate::TrainError;
use crate::recipe::PrecisionName;

const CPU: &str = "cpu";

/// The device of this name, without autodiff. `auto` is the best one present, a backend's name its first device, and of several,
/// with commas between, it is the first.
///
/// # Errors
/// [`TrainError::NoDevice`] for one that this build or this machine does not have.
pub fn device(name: &str) -> Result<Device, TrainError> {
    Ok(devices_of(name)?.swap_remove(0))
}

/// The devices of these names, with commas between.
pub(crate) fn devices_of(names: &str) -> Result<Vec<Device>, TrainError> {
    let names = device_name(names);
    let mut present: Option<Vec<(String, Device)>> = None;
    let device = |name: &str| {
        if name == CPU {
            // Not looking for others spares opening drivers.
            return Ok(Device::flex());
        }
        let present = present.get_or_insert_with(self::present);
        match present.iter().find(|(present, _)| present == name) {
            Some((_, device)) => Ok(device.clone()),
            None => {
                Err(TrainError::NoDevice { name: name.to_owned(), present: devices().join(", ") })
            }
        }
    };
    names.split(',').map(device).collect()
}

/// The device of this name, or the first of several, if all can store tensors in this precision, and share `batch_size`
/// pictures.
///
/// # Errors
/// As [`device`], and [`TrainError::Unsupported`] for one that cannot.
pub(crate) fn device_for(
    names: &str,
    precision: PrecisionName,
    batch_size: usize,
) -> Result<Device, TrainError> {
    let (mut devices, names) = (devices_of(names)?, device_name(names));
    let unsupported = |name: &str, why: &str| {
        Err(TrainError::Unsupported { name: name.to_owned(), why: why.to_owned() })
    };
    for (i, (name, device)) in names.split(',').zip(&devices).enumerate() {
        if precision == PrecisionName::Bf16 && !device.supports_dtype(FloatDType::BF16) {
            return unsupported(name, "it has no bf16; f32 it has");
        }
        // Of a CPU there may be any number, to see what several devices do to a run.
        if name != CPU && names.split(',').take(i).any(|other| other == name) {
            return unsupported(name, "it is named twice");
        }
    }
    if !batch_size.is_multiple_of(devices.len()) {
        let why = format!("train.batch_size = {batch_size} does not divide by {}", devices.len());
        return unsupported(&names, &why);
    }
    Ok(devices.swap_remove(0))
}

/// The name in full: `auto` is the best device present, and a backend's name its first device. So for each of several, with
/// commas between.
pub fn device_name(names: &str) -> String {
    let in_full = |name: &str| match name.trim() {
        CPU => CPU.to_owned(),
        "auto" => best(),
        name if name.contains(':') => name.to_owned(),
        name => format!("{name}:0"),
    };
    names.split(',').map(in_full).collect::<Vec<_>>().join(",")
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
    fn devices_share_a_batch_evenly() {
        assert!(device_for("cpu,cpu", PrecisionName::F32, 6).is_ok());
        let error = device_for("cpu,cpu", PrecisionName::F32, 7).unwrap_err().to_string();
        assert!(error.contains("cpu,cpu") && error.contains("train.batch_size = 7"), "{error}");
    }

    #[test]
    fn names_are_told_in_full_and_unknown_ones_with_what_there_is() {
        assert_eq!(device_name("cuda"), "cuda:0");
        assert_eq!(device_name("cuda:1"), "cuda:1");
        assert_eq!(device_name(&device_name("auto")), device_name("auto"));
        assert_eq!(device(CPU).unwrap(), Device::flex());
        let error = device("abacus").unwrap_err().to_string();
        assert!(error.contains("no device `abacus:0`") && error.contains("cpu"), "{error}");
        assert_eq!(device_name("cuda, cpu"), "cuda:0,cpu");
        assert_eq!(devices_of("cpu,cpu").unwrap().len(), 2);
        assert!(devices_of("cpu,abacus").is_err() && devices_of("cpu,").is_err());
    }
}
