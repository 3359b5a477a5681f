# Short names for the commands of CONTRIBUTING.md. `just` alone lists them.

# List the recipes.
default:
    @just --list

# Format the workspace.
fmt:
    cargo fmt --all

# Format check, clippy and docs; a warning is an error.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# Run the tests.
test:
    cargo test --release --workspace

# Check licences, bans and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny --locked check licenses bans sources

# Regenerate the fixtures that PyTorch makes; `just python=.venv/bin/python fixtures` picks another one.
fixtures:
    for script in benches/peers/*_fixture.py; do {{ python }} "$script" || exit 1; done

# Everything a change must pass, as on a clean machine.
ci:
    bash .ci/run

# Kernels, gradients, models and the command on a GPU, by default software that acts as one (Debian: chromium, libvulkan1).
gpu-check icd="/usr/lib/chromium/vk_swiftshader_icd.json":
    VK_DRIVER_FILES={{ icd }} BURN_DEVICE=wgpu CUBECL_AUTOTUNE_LEVEL=minimal cargo test --release -p fixnorm -p fixnorm-nn -p fixnorm-cli \
        --features fixnorm-cli/wgpu --target-dir target/gpu --lib --test all --test gpu -- --test-threads=1 \
        gpu:: a_gpu_and gradients_are steps_are sixteen_bits resnet8 resnet20

python := "python3"

# Kernel tests under AddressSanitizer and under valgrind, little optimized: both check memory, not speed. valgrind has no
# AVX-512, so there the kernels detect AVX2; AddressSanitizer does not see into the assembly of AMX. About three CPU minutes
# each, most of them compilation: fewer cases a property (PROPTEST_CASES), all tests.
sanitize:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address PROPTEST_CASES=8 cargo test --release -p fixnorm-kernels --lib \
        --target x86_64-unknown-linux-gnu --target-dir target/sanitize {{ little_optimized }}
    PROPTEST_CASES=1 cargo test --release -p fixnorm-kernels --lib --target-dir target/valgrind {{ little_optimized }} \
        --config "target.'cfg(all())'.runner = 'valgrind -q --error-exitcode=9'" -- --test-threads=1

# Kernel tests on AArch64, emulated by qemu in a chroot of Debian sid (on Debian as root; apt-get install debootstrap).
arm root="target/arm":
    scripts/arm.sh {{ root }}

little_optimized := "--config profile.release.package.fixnorm-kernels.opt-level=1"
