//! Huffman codes of JPEG files: tables that give a symbol with its value at one look, and the reader of bits.
//! Not here: which coefficients are kept (`sequential.rs`).
//!
//! 1. Bits come from a reservoir of 64, filled by one load of eight bytes: what is stuffed between coded bytes was
//!    taken out before (`scan.rs`).
//! 2. A look at the next [`LOOK`] bits gives a symbol and, where they fit, its value's bits too.
//! 3. Coefficients that nobody needs are passed over by a table of their own: one look gives the length of all whole
//!    codes among the bits looked at, with their values' bits.

use super::scan::{Coded, ZIGZAG};

/// Bits looked at for a symbol.
const LOOK: u32 = 10;
/// Bits looked at to pass over symbols.
const PASS: u32 = 12;
/// The longest code.
const LONGEST: u32 = 16;
/// The advance of the symbol that ends a block.
const END: u32 = 64;

/// A canonical code.
struct Code {
    /// The first code of each length, one past the last, and the index of the first's symbol.
    lengths: [(u32, u32, usize); LONGEST as usize + 1],
    symbols: Vec<u8>,
}

impl Code {
    /// None where there are more codes of a length than fit, or other symbols than codes.
    fn new(counts: &[u8; LONGEST as usize], symbols: &[u8]) -> Option<Self> {
        let mut lengths = [(0, 0, 0); LONGEST as usize + 1];
        let (mut code, mut index) = (0, 0);
        for (length, &count) in (1..).zip(counts) {
            code <<= 1;
            let end = code + u32::from(count);
            if end > 1 << length {
                return None;
            }
            lengths[length] = (code, end, index);
            (code, index) = (end, index + usize::from(count));
        }
        (index == symbols.len()).then(|| Self { lengths, symbols: symbols.to_vec() })
    }

    /// The code that the 16 bits begin with: its length and its symbol.
    #[cold]
    fn find(&self, bits: u32) -> Option<(u32, u8)> {
        (1..=LONGEST).find_map(|length| {
            let (first, end, index) = self.lengths[length as usize];
            let code = bits >> (LONGEST - length);
            let found = (first..end).contains(&code);
            found.then(|| (length, self.symbols[index + (code - first) as usize]))
        })
    }

    /// An entry for all that `look` bits can be: of the code's length, its symbol and the bits. 0 where the code is longer.
    fn table<const SIZE: usize>(
        &self,
        look: u32,
        entry: impl Fn(u32, u8, u32) -> u32,
    ) -> Box<[u32; SIZE]> {
        let mut table = Box::new([0; SIZE]);
        for length in 1..=look {
            let (first, end, index) = self.lengths[length as usize];
            for (code, &symbol) in (first..end).zip(&self.symbols[index..]) {
                let spare = look - length;
                for bits in code << spare..(code + 1) << spare {
                    table[bits as usize] = entry(length, symbol, bits);
                }
            }
        }
        table
    }
}

/// A symbol: the length of its code with its value's bits (5 bits), how far it leads in the block (7), how many bits of
/// the value are to be read (4), and the value where none are (16).
#[derive(Clone, Copy)]
struct Symbol(u32);

impl Symbol {
    fn new(length: u32, advance: u32, size: u32, value: i32) -> Self {
        Self(length | advance << 5 | size << 12 | (value as u32) << 16)
    }

    fn length(self) -> u32 {
        self.0 & 31
    }

    fn advance(self) -> u32 {
        self.0 >> 5 & 127
    }

    fn size(self) -> u32 {
        self.0 >> 12 & 15
    }

    fn value(self) -> i32 {
        self.0 as i32 >> 16
    }

    /// The entry for `bits`, with the value if its bits are among them.
    fn looked(length: u32, advance: u32, size: u32, bits: u32) -> u32 {
        if size > 0 && length + size <= LOOK {
            let value = bits >> (LOOK - length - size) & ((1 << size) - 1);
            Self::new(length + size, advance, 0, extended(value, size)).0
        } else {
            Self::new(length + size, advance, size, 0).0
        }
    }
}

/// The value that `size` bits, at least 1, stand for.
#[inline(always)]
fn extended(bits: u32, size: u32) -> i32 {
    // The upper half is positive.
    let negative = (bits >> (size - 1) & 1) ^ 1;
    bits as i32 - (((1 << size) - 1) * negative) as i32
}

/// Codes of a block's first coefficient.
pub(super) struct DcTable {
    code: Code,
    look: Box<[u32; 1 << LOOK]>,
}

impl DcTable {
    /// None where the code is none.
    pub(super) fn new(counts: &[u8; LONGEST as usize], symbols: &[u8]) -> Option<Self> {
        let code = Code::new(counts, symbols)?;
        if symbols.iter().any(|&size| size > 11) {
            return None;
        }
        let entry = |length, size, bits| Symbol::looked(length, 1, u32::from(size), bits);
        Some(Self { look: code.table(LOOK, entry), code })
    }

    /// The difference to the block before. None where no code is found.
    #[inline(always)]
    pub(super) fn difference(&self, bits: &mut Bits<'_>) -> Option<i32> {
        bits.refill();
        let mut symbol = Symbol(self.look[bits.peek(LOOK)]);
        if symbol.length() == 0 {
            let (length, size) = self.code.find(bits.peek(LONGEST) as u32)?;
            symbol = Symbol::new(length + u32::from(size), 1, size.into(), 0);
        }
        Some(bits.value(symbol))
    }
}

/// Codes of a block's further coefficients.
pub(super) struct AcTable {
    code: Code,
    look: Box<[u32; 1 << LOOK]>,
    /// For all that the bits can be: length of the whole codes among them with their values' bits (8 bits), how far they
    /// lead (8), and [`ENDS`]. 0 where the first code is longer.
    pass: Box<[u32; 1 << PASS]>,
}

/// In [`AcTable::pass`]: the last symbol ends the block.
const ENDS: u32 = 1 << 16;

/// How far a symbol leads, and how many bits its value has. None for symbols that no sequential file has.
fn parts(symbol: u8) -> Option<(u32, u32)> {
    match (u32::from(symbol >> 4), u32::from(symbol & 15)) {
        (0, 0) => Some((END, 0)),
        (15, 0) => Some((16, 0)),
        (_, 0 | 11..) => None,
        (zeros, size) => Some((zeros + 1, size)),
    }
}

impl AcTable {
    /// None where the code is none.
    pub(super) fn new(counts: &[u8; LONGEST as usize], symbols: &[u8]) -> Option<Self> {
        let code = Code::new(counts, symbols)?;
        symbols.iter().try_for_each(|&symbol| parts(symbol).map(|_| ()))?;
        let entry = |length, symbol, bits| {
            parts(symbol).map_or(0, |(advance, size)| Symbol::looked(length, advance, size, bits))
        };
        Some(Self { look: code.table(LOOK, entry), pass: passes(&code), code })
    }

    /// The next symbol. None where no code is found.
    #[inline(always)]
    fn symbol(&self, bits: &Bits<'_>) -> Option<Symbol> {
        let symbol = Symbol(self.look[bits.peek(LOOK)]);
        if symbol.length() != 0 {
            return Some(symbol);
        }
        let (length, symbol) = self.code.find(bits.peek(LONGEST) as u32)?;
        let (advance, size) = parts(symbol)?;
        Some(Symbol::new(length + size, advance, size, 0))
    }

    /// Reads a block behind its first coefficient and keeps those coefficients, times their `quantization`, that are coded
    /// at `last` or before. Returns whether one was kept; none where the code is damaged.
    #[inline(always)]
    pub(super) fn read(
        &self,
        bits: &mut Bits<'_>,
        quantization: &[i32; 64],
        last: u32,
        block: &mut [i32; 64],
    ) -> Option<bool> {
        let mut next = 1;
        while next <= last {
            bits.refill();
            let symbol = self.symbol(bits)?;
            let value = bits.value(symbol);
            if symbol.advance() == END {
                return Some(next > 1);
            }
            next += symbol.advance();
            let at = next as usize - 1;
            if at > 63 {
                return None;
            }
            block[usize::from(ZIGZAG[at]) & 63] = value * quantization[at];
        }
        self.pass(bits, next)?;
        Some(true)
    }

    /// Passes over a block's coefficients from the one coded at `next` on. None where the code is damaged.
    #[inline(always)]
    pub(super) fn pass(&self, bits: &mut Bits<'_>, mut next: u32) -> Option<()> {
        while next < 64 {
            bits.refill();
            // Two looks for each refill: the first takes at most PASS bits and a value's 10, the second is left 34.
            for _ in 0..2 {
                let entry = self.pass[bits.peek(PASS)];
                let after = next + (entry >> 8 & 255);
                // Where the block may end before the last of these symbols, they are passed over one by one.
                if entry == 0 || after >= 64 {
                    let symbol = self.symbol(bits)?;
                    bits.consume(symbol.length());
                    if symbol.advance() == END {
                        return Some(());
                    }
                    next += symbol.advance();
                    break;
                }
                bits.consume(entry & 255);
                if entry & ENDS != 0 {
                    return Some(());
                }
                next = after;
            }
        }
        (next == 64).then_some(())
    }
}

/// See [`AcTable::pass`].
fn passes(code: &Code) -> Box<[u32; 1 << PASS]> {
    let codes: Box<[u32; 1 << PASS]> =
        code.table(PASS, |length, symbol, _| length | u32::from(symbol) << 8);
    let mut table = Box::new([0; 1 << PASS]);
    for (bits, entry) in table.iter_mut().enumerate() {
        let (mut length, mut advances) = (0, 0);
        while length < PASS {
            let found = codes[bits << length & ((1 << PASS) - 1)];
            let own = found & 255;
            if own == 0 || length + own > PASS {
                break;
            }
            let Some((advance, size)) = parts((found >> 8) as u8) else { break };
            length += own + size;
            if advance == END {
                advances |= ENDS;
                break;
            }
            advances += advance << 8;
        }
        *entry = length | advances;
    }
    table
}

/// Reads coded bits.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the uppermost on.
    hold: u64,
    /// How many of them are read.
    have: u32,
}

impl<'a> Bits<'a> {
    /// The bits from a byte on.
    pub(super) fn new(coded: &'a Coded, at: usize) -> Self {
        Self { bytes: &coded.bytes, at, hold: 0, have: 0 }
    }

    /// Makes sure of 56 bits. What is behind the end is 0.
    #[inline(always)]
    fn refill(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let next = rest.first_chunk::<8>().map_or(0, |&bytes| u64::from_be_bytes(bytes));
        self.hold |= next >> self.have;
        self.at += (63 - self.have as usize) >> 3;
        self.have |= 56;
    }

    /// The next bits, at most 16 of those that were made sure of.
    #[inline(always)]
    fn peek(&self, count: u32) -> usize {
        (self.hold >> (64 - count)) as usize
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        self.hold <<= count;
        self.have -= count;
    }

    /// Takes a symbol, whose bits were made sure of, and returns its value.
    #[inline(always)]
    fn value(&mut self, symbol: Symbol) -> i32 {
        let (length, size) = (symbol.length(), symbol.size());
        let value = if size == 0 {
            symbol.value()
        } else {
            extended((self.hold << (length - size) >> (64 - size)) as u32, size)
        };
        self.consume(length);
        value
    }

    /// The number of bits up to the byte `end` that were not taken; below 0 where more were.
    pub(super) fn left(&self, end: usize) -> i64 {
        8 * (end as i64 - self.at as i64) + i64::from(self.have)
    }
}
