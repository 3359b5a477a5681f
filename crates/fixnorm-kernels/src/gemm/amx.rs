//! The inner loop with tiles of 16 × 16 sums: two by two of them at a time, each step a product of 32
//! deep. In assembly, because the intrinsics are not stable; the instructions are Intel's.
//!
//! Each block of assembly loads the tiles that it uses and names all that it writes, so no value stays in a tile between two
//! blocks, where the compiler would not know of it. Only the tiles' shapes do, from `ldtilecfg` to `tilerelease` in
//! [`product_bf16`]: the compiler itself never emits an instruction that reads or changes them, and the operating system
//! keeps them for each thread.

use std::arch::asm;

use super::operands::{COLUMNS, Operands, ROWS};
use crate::real::bf16;

/// All eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// An [`asm!`] block that may write every tile.
macro_rules! tiles {
    ($($tokens:tt)*) => {
        asm!(
            $($tokens)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        )
    };
}

/// # Safety
/// As [`product`](super::inner::product), with tiles.
pub(super) unsafe fn product_bf16(o: Operands<bf16>) {
    // SAFETY: tiles are available to this process, and the configuration is a valid one. It holds
    // until the release below; nothing in between touches tiles but `four` and `one`.
    unsafe { tiles!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly),) };
    let row_tiles = o.m.div_ceil(ROWS);
    for panel in (0..o.panels).step_by(2) {
        for tile in (0..row_tiles).step_by(2) {
            // SAFETY: the caller's; rows are padded to whole tiles.
            unsafe {
                match (row_tiles - tile, o.panels - panel) {
                    (1, 1) => one(o, tile, panel),
                    (1, _) => {
                        one(o, tile, panel);
                        one(o, tile, panel + 1);
                    }
                    (_, 1) => {
                        one(o, tile, panel);
                        one(o, tile + 1, panel);
                    }
                    _ => four(o, tile, panel),
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { tiles!("tilerelease", options(nostack, nomem),) };
}

/// Two by two tiles of sums: each tile of an operand is used twice.
///
/// # Safety
/// As [`product_bf16`]; both row tiles and both panels exist, and tiles are configured.
unsafe fn four(o: Operands<bf16>, tile: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe {
        let l = o.l.add(tile * ROWS * o.l_row);
        let r = o.r.add(panel * o.r_panel);
        let c = o.c.add(tile * ROWS * o.c_row + panel * COLUMNS);
        tiles!(
            "test {accumulate}, {accumulate}",
            "jz 3f",
            "tileloadd tmm0, [{c} + {c_row}]",
            "tileloadd tmm1, [{c} + {c_row} + 64]",
            "tileloadd tmm2, [{c_next} + {c_row}]",
            "tileloadd tmm3, [{c_next} + {c_row} + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{l} + {l_row}]",
            "tileloadd tmm6, [{r} + {r_row}]",
            "tileloadd tmm5, [{l_next} + {l_row}]",
            "tileloadd tmm7, [{r_next} + {r_row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {l}, 64",
            "add {l_next}, 64",
            "add {r}, {r_step}",
            "add {r_next}, {r_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {c_row}], tmm0",
            "tilestored [{c} + {c_row} + 64], tmm1",
            "tilestored [{c_next} + {c_row}], tmm2",
            "tilestored [{c_next} + {c_row} + 64], tmm3",
            accumulate = in(reg) usize::from(o.accumulate),
            c = in(reg) c,
            c_next = in(reg) c.add(ROWS * o.c_row),
            c_row = in(reg) 4 * o.c_row,
            l = inout(reg) l => _,
            l_next = inout(reg) l.add(ROWS * o.l_row) => _,
            l_row = in(reg) 2 * o.l_row,
            r = inout(reg) r => _,
            r_next = inout(reg) r.add(o.r_panel) => _,
            r_row = in(reg) 2 * o.r_row,
            r_step = in(reg) 2 * ROWS * o.r_row,
            steps = inout(reg) o.k / ROWS => _,
            options(nostack),
        );
    }
}

/// One tile of sums, at an edge.
///
/// # Safety
/// As [`product_bf16`]; the row tile and the panel exist, and tiles are configured.
unsafe fn one(o: Operands<bf16>, tile: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe {
        let l = o.l.add(tile * ROWS * o.l_row);
        let r = o.r.add(panel * o.r_panel);
        let c = o.c.add(tile * ROWS * o.c_row + panel * COLUMNS);
        tiles!(
            "test {accumulate}, {accumulate}",
            "jz 3f",
            "tileloadd tmm0, [{c} + {c_row}]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "2:",
            "tileloadd tmm4, [{l} + {l_row}]",
            "tileloadd tmm6, [{r} + {r_row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "add {l}, 64",
            "add {r}, {r_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {c_row}], tmm0",
            accumulate = in(reg) usize::from(o.accumulate),
            c = in(reg) c,
            c_row = in(reg) 4 * o.c_row,
            l = inout(reg) l => _,
            l_row = in(reg) 2 * o.l_row,
            r = inout(reg) r => _,
            r_row = in(reg) 2 * o.r_row,
            r_step = in(reg) 2 * ROWS * o.r_row,
            steps = inout(reg) o.k / ROWS => _,
            options(nostack),
        );
    }
}
