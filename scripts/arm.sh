#!/usr/bin/env bash
# Tests for AArch64 on a Debian machine that is x86-64: built in a chroot of Debian sid, run under qemu's user mode.
#
#     scripts/arm.sh [ROOT=target/arm] [ARGUMENT…]
#
# As root. The first run makes the chroot ROOT (2.7 GB; needs debootstrap), later ones use it again. ARGUMENTs go to `cargo test`, by default
# `-p fixnorm-kernels --lib`. What is built stays in ROOT; no mount outlives the script, so ROOT can be removed afterwards.
#
# MIRROR is Debian's mirror (http://deb.debian.org/debian). APT_OPTIONS are options of apt-get, for example
# `-o Acquire::Check-Valid-Until=false` for a mirror that is kept at one day.
set -euo pipefail
script=$(realpath "${BASH_SOURCE[0]}")
checkout=$(dirname "$(dirname "$script")")

fail() {
    printf 'arm: %s\n' "$1" >&2
    exit 1
}

[ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m), not x86_64 (on AArch64: cargo test --release -p fixnorm-kernels)"
[ "$(id -u)" = 0 ] || fail "chroot and mounts need root"
# A namespace of its own takes the mounts with it, however the script ends.
[ -n "${ARM_OWN_MOUNTS:-}" ] || ARM_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$script" "$@"

root=$(realpath -m "${1:-$checkout/target/arm}")
shift $(($# > 0))
[ $# -gt 0 ] || set -- -p fixnorm-kernels --lib

in_root() { chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

# A cross compiler, the standard library for AArch64 and an emulator. Written last, `arm-ready` says that all of it is there.
make_root() {
    command -v debootstrap >/dev/null || fail "debootstrap not found (Debian: apt-get install debootstrap)"
    [ -z "$(ls -A "$root" 2>/dev/null)" ] || fail "$root is no complete chroot of this script: remove it or name another folder"
    debootstrap --variant=minbase sid "$root" "${MIRROR:-http://deb.debian.org/debian}"
    in_root dpkg --add-architecture arm64
    # shellcheck disable=SC2086 # Several options.
    in_root apt-get ${APT_OPTIONS:-} update
    # shellcheck disable=SC2086
    in_root apt-get ${APT_OPTIONS:-} install -y --no-install-recommends ca-certificates cargo rustc libstd-rust-dev:arm64 \
        gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    in_root apt-get clean
    touch "$root/arm-ready"
}

[ -e "$root/arm-ready" ] || make_root
mkdir -p "$root/checkout" "$root/root/.cargo/registry"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$checkout" "$root/checkout"
# The crates that this machine's cargo has, and where it gets others from.
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
[ ! -d "$cargo_home/registry" ] || mount --bind "$cargo_home/registry" "$root/root/.cargo/registry"
[ ! -f "$cargo_home/config.toml" ] || cp "$cargo_home/config.toml" "$root/root/.cargo/config.toml"

# Debian's cargo is newer than the version in rust-toolchain.toml, which is rustup's file and not read here.
in_root env --chdir=/checkout CARGO_TARGET_DIR=/build CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    ${PROPTEST_CASES:+PROPTEST_CASES=$PROPTEST_CASES} cargo test --locked --release --target aarch64-unknown-linux-gnu "$@"
