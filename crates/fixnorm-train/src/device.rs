//! Devices by name: `cpu`, and for each backend of this build `NAME:INDEX`, as `cuda:0`; several as `cuda:0,cuda:1`.
//! Names are parsed here and nowhere else.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "gpu")]
use burn::tensor::DeviceType;
use burn::tensor::{Device, FloatDType};
use fixnorm_nn::{Precision, ProductTuning, Recompute};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A device by name. Whether this machine has it is known when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// `auto`: the best device present.
    #[default]
    Auto,
    /// `cpu`.
    Cpu,
    /// A device of a backend, as `cuda:0`; `cuda` is its first.
    Gpu {
        /// The backend.
        backend: String,
        /// Which of its devices, counted from 0.
        index: usize,
    },
}

/// A text that names no device, or not as many as asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceNameError {
    /// Another form.
    #[error("`{0}` is not a device name: expected auto, cpu, or a backend, as cuda or cuda:1")]
    Form(String),
    /// Several where one is needed.
    #[error("`{0}` names several devices, and this uses one")]
    Several(String),
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        let error = || DeviceNameError::Form(text.to_owned());
        let (backend, index) = match text.trim() {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            name if name.contains(',') => return Err(DeviceNameError::Several(text.to_owned())),
            name => name.split_once(':').unwrap_or((name, "0")),
        };
        let is_word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if backend.is_empty() || !is_word(backend) {
            return Err(error());
        }
        let index = index.parse().map_err(|_| error())?;
        Ok(Self::Gpu { backend: backend.to_owned(), index })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu { backend, index } => write!(f, "{backend}:{index}"),
        }
    }
}

impl DeviceName {
    /// The name with `auto` replaced by the best device present.
    pub fn resolved(&self) -> Self {
        match self {
            Self::Auto => best(),
            name => name.clone(),
        }
    }

    /// The device, without autodiff.
    ///
    /// # Errors
    /// [`TrainError::NoDevice`] for one that this build or this machine does not have.
    pub fn open(&self) -> Result<Device, TrainError> {
        Devices::from(self.clone()).first()
    }
}

/// Devices by name, at least one: `cpu`, or several with commas between, which share every batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Devices(Vec<DeviceName>);

impl Default for Devices {
    fn default() -> Self {
        Self(vec![DeviceName::Auto])
    }
}

impl From<DeviceName> for Devices {
    fn from(name: DeviceName) -> Self {
        Self(vec![name])
    }
}

impl FromStr for Devices {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        Ok(Self(text.split(',').map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl TryFrom<String> for Devices {
    type Error = DeviceNameError;

    fn try_from(text: String) -> Result<Self, DeviceNameError> {
        // The plan of a study names none: each of its processes has its own.
        if text.is_empty() { Ok(Self::default()) } else { text.parse() }
    }
}

impl From<Devices> for String {
    fn from(devices: Devices) -> Self {
        devices.to_string()
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(","))
    }
}

impl Devices {
    /// The names with `auto` replaced by the best device present.
    pub fn resolved(&self) -> Self {
        Self(self.0.iter().map(DeviceName::resolved).collect())
    }

    /// The devices, without autodiff.
    ///
    /// # Errors
    /// [`TrainError::NoDevice`] for one that this build or this machine does not have.
    pub fn open(&self) -> Result<Vec<Device>, TrainError> {
        let mut found: Option<Vec<(DeviceName, Device)>> = None;
        let open = |name: DeviceName| {
            if name == DeviceName::Cpu {
                // Without a search: it would open drivers.
                return Ok(Device::flex());
            }
            let found = found.get_or_insert_with(present);
            let device = found.iter().find(|(present, _)| *present == name);
            device.map(|(_, device)| device.clone()).ok_or_else(|| TrainError::NoDevice {
                name: name.to_string(),
                present: found
                    .iter()
                    .map(|(name, _)| name.to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        self.resolved().0.into_iter().map(open).collect()
    }

    /// The first device, without autodiff.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn first(&self) -> Result<Device, TrainError> {
        Ok(self.open()?.swap_remove(0))
    }

    /// The first device, if all can store tensors in this precision, compute this again in the backward pass and share
    /// `batch_size` images evenly.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`TrainError::Unsupported`] for a device that cannot.
    pub(crate) fn first_for(
        &self,
        precision: Precision,
        recompute: Recompute,
        batch_size: usize,
    ) -> Result<Device, TrainError> {
        let (mut devices, names) = (self.open()?, self.resolved());
        let unsupported = |name: String, why: String| Err(TrainError::Unsupported { name, why });
        for (i, (name, device)) in names.0.iter().zip(&devices).enumerate() {
            if precision == Precision::Bf16 && !device.supports_dtype(FloatDType::BF16) {
                return unsupported(name.to_string(), "it has no bf16, only f32".to_owned());
            }
            if recompute == Recompute::Blocks && *name != DeviceName::Cpu {
                let why = "train.recompute = \"blocks\" is for CPUs; use train.recompute=none";
                return unsupported(name.to_string(), why.to_owned());
            }
            // Several CPUs are allowed, to see what several devices do to a run.
            if *name != DeviceName::Cpu && names.0[..i].contains(name) {
                return unsupported(name.to_string(), "it is named twice".to_owned());
            }
        }
        if !batch_size.is_multiple_of(devices.len()) {
            let count = devices.len();
            let why = format!("train.batch_size = {batch_size} is not divisible by {count}");
            return unsupported(names.to_string(), why);
        }
        Ok(devices.swap_remove(0))
    }
}

/// Makes this the choice of a GPU's kernels for this process: before any device is opened. With the table, Burn's tuner, which
/// still chooses the kernels of a few operations, works at its quickest level unless CubeCL's settings ask for more than its
/// default.
///
/// # Errors
/// The choice in use, if another one was made.
pub fn choose_kernels(tuning: ProductTuning) -> Result<(), ProductTuning> {
    #[cfg(feature = "gpu")]
    if tuning != ProductTuning::Full {
        use burn_cubecl::cubecl::config::autotune::AutotuneLevel;
        use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        if matches!(config.autotune.level, AutotuneLevel::Balanced) {
            config.autotune.level = AutotuneLevel::Minimal;
        }
        // A program that embeds this library may have settings of its own.
        CubeClRuntimeConfig::try_set(config);
    }
    tuning.set()
}

/// Names of all devices that this build finds on this machine, the CPU last.
pub fn devices() -> Vec<DeviceName> {
    present().into_iter().map(|(name, _)| name).collect()
}

fn present() -> Vec<(DeviceName, Device)> {
    let gpus = gpus().into_iter().flat_map(|(backend, devices)| {
        let name = move |index| DeviceName::Gpu { backend: backend.to_owned(), index };
        devices.into_iter().enumerate().map(move |(index, device)| (name(index), device))
    });
    gpus.chain([(DeviceName::Cpu, Device::flex())]).collect()
}

/// The first device that is not a CPU behind a graphics API.
fn best() -> DeviceName {
    let best = present().into_iter().find(|(_, device)| !is_software(device));
    best.map_or(DeviceName::Cpu, |(name, _)| name)
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

/// Whether the device is a CPU behind a graphics API, far slower than the CPU's own kernels.
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

    fn named(text: &str) -> Devices {
        text.parse().unwrap()
    }

    #[test]
    fn devices_share_a_batch_evenly() {
        let of = |n| named("cpu,cpu").first_for(Precision::F32, Recompute::Blocks, n);
        assert!(of(6).is_ok());
        let error = of(7).unwrap_err().to_string();
        assert!(error.contains("cpu,cpu") && error.contains("train.batch_size = 7"), "{error}");
    }

    #[test]
    fn names_are_printed_in_full_and_unknown_ones_with_what_is_present() {
        assert_eq!(named("cuda").to_string(), "cuda:0");
        assert_eq!(named("cuda:1").to_string(), "cuda:1");
        assert_eq!(named("cuda, cpu").to_string(), "cuda:0,cpu");
        let best = named("auto").resolved();
        assert!(best != named("auto") && best.resolved() == best, "{best}");
        assert_eq!(named("cpu").first().unwrap(), Device::flex());
        let error = named("abacus").open().unwrap_err().to_string();
        assert!(error.contains("no device `abacus:0`") && error.contains("cpu"), "{error}");
        assert_eq!(named("cpu,cpu").open().unwrap().len(), 2);
        assert!(named("cpu,abacus").open().is_err());
    }

    #[test]
    fn what_names_no_device_or_several_is_refused() {
        for text in ["", "cpu,", "cuda:", "cuda:x", "cuda:-1", ":0", "cu da"] {
            assert!(text.parse::<Devices>().is_err(), "{text:?}");
        }
        let error = "cpu,cuda:0".parse::<DeviceName>().unwrap_err().to_string();
        assert_eq!(error, "`cpu,cuda:0` names several devices, and this uses one");
    }

    #[test]
    fn a_plan_keeps_names_as_text() {
        let text = serde_json::to_string(&named("cuda,cpu")).unwrap();
        assert_eq!(text, "\"cuda:0,cpu\"");
        assert_eq!(serde_json::from_str::<Devices>(&text).unwrap(), named("cuda,cpu"));
        assert_eq!(serde_json::from_str::<Devices>("\"\"").unwrap(), Devices::default());
        assert!(serde_json::from_str::<Devices>("\"a:b:c\"").is_err());
    }
}
