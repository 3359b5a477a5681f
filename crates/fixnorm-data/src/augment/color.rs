//! Operations on values: a table for each channel, or a blend with another version of the image.
//! Not here: operations that move pixels (`geometry.rs`).
//!
//! Source: the documentation and behaviour of Pillow's ImageOps and ImageEnhance; `tests/augment.rs` compares
//! every byte. A blend is computed in f32 and cut, as Pillow does it.

use crate::Image;
use crate::channels::luma;
use crate::dispatch::vectorized;

type Table = [u8; 256];

fn table(value: impl Fn(u8) -> u8) -> Table {
    std::array::from_fn(|byte| value(byte as u8))
}

/// Every channel through the same table.
fn map(image: &mut Image, table: &Table) {
    image.pixels.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// Maps every channel by a table computed from its histogram.
fn map_each(image: &mut Image, table: impl Fn(&[u32; 256]) -> Table) {
    match image.channels {
        1 => {
            let table = table(&histograms::<1>(&image.pixels)[0]);
            map(image, &table);
        }
        _ => {
            let tables = histograms::<3>(&image.pixels).map(|histogram| table(&histogram));
            for pixel in image.pixels.as_chunks_mut::<3>().0 {
                *pixel = std::array::from_fn(|c| tables[c][usize::from(pixel[c])]);
            }
        }
    }
}

fn histograms<const C: usize>(pixels: &[u8]) -> [[u32; 256]; C] {
    let mut counts = [[0; 256]; C];
    for pixel in pixels.as_chunks::<C>().0 {
        for (count, &value) in counts.iter_mut().zip(pixel) {
            count[usize::from(value)] += 1;
        }
    }
    counts
}

pub(super) fn auto_contrast(image: &mut Image) {
    map_each(image, |histogram| {
        let low = histogram.iter().position(|&count| count > 0).unwrap_or_default();
        let high = histogram.iter().rposition(|&count| count > 0).unwrap_or_default();
        if high <= low {
            return table(|value| value);
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        table(|value| (f64::from(value) * scale + offset) as u8)
    });
}

pub(super) fn equalize(image: &mut Image) {
    map_each(image, |histogram| {
        let present = histogram.iter().filter(|&&count| count > 0);
        let last = present.clone().next_back().copied().unwrap_or_default();
        let step = (histogram.iter().sum::<u32>() - last) / 255;
        if present.count() <= 1 || step == 0 {
            return table(|value| value);
        }
        let mut sum = step / 2;
        std::array::from_fn(|value| {
            let mapped = (sum / step).min(255) as u8;
            sum += histogram[value];
            mapped
        })
    });
}

pub(super) fn invert(image: &mut Image) {
    image.pixels.iter_mut().for_each(|value| *value = !*value);
}

pub(super) fn posterize(image: &mut Image, bits: u32) {
    let mask = !(0xff_u16 >> bits.min(8)) as u8;
    image.pixels.iter_mut().for_each(|value| *value &= mask);
}

pub(super) fn solarize(image: &mut Image, threshold: f64) {
    map(image, &table(|value| if f64::from(value) < threshold { value } else { !value }));
}

pub(super) fn solarize_add(image: &mut Image, add: u8) {
    map(image, &table(|value| if value < 128 { value.saturating_add(add) } else { value }));
}

/// From `other` at factor 0 to `value` at 1, and on.
#[inline(always)]
fn blend(other: u8, value: u8, factor: f32) -> u8 {
    (f32::from(other) + factor * (f32::from(value) - f32::from(other))) as u8
}

pub(super) fn brightness(image: &mut Image, factor: f32) {
    map(image, &table(|value| blend(0, value, factor)));
}

pub(super) fn contrast(image: &mut Image, factor: f32) {
    let sum: u64 = match image.channels {
        1 => image.pixels.iter().map(|&value| u64::from(value)).sum(),
        _ => image.pixels.as_chunks::<3>().0.iter().map(|pixel| u64::from(luma(pixel))).sum(),
    };
    let count = (image.height * image.width) as u64;
    let mean = ((2 * sum + count) / (2 * count)) as u8;
    map(image, &table(|value| blend(mean, value, factor)));
}

pub(super) fn saturate(image: &mut Image, factor: f32) {
    if image.channels == 3 {
        let pixels = image.pixels.as_chunks_mut::<3>().0;
        vectorized(|| {
            for pixel in pixels {
                let grey = luma(pixel);
                *pixel = pixel.map(|value| blend(grey, value, factor));
            }
        });
    }
}

pub(super) fn sharpness(image: &mut Image, factor: f32) {
    let (height, line) = (image.height, image.width * image.channels);
    let source = image.pixels.clone();
    let channels = image.channels;
    // The outermost pixels stay as they are.
    if height < 3 || image.width < 3 {
        return;
    }
    for y in 1..height - 1 {
        let [above, own, below] = [y - 1, y, y + 1].map(|y| &source[y * line..][..line]);
        let out = &mut image.pixels[y * line + channels..(y + 1) * line - channels];
        vectorized(|| sharpen_row(out, [above, own, below], channels, factor));
    }
}

/// Blends a row with itself smoothed by the kernel 1 1 1, 1 5 1, 1 1 1 over 13.
#[inline(always)]
fn sharpen_row(out: &mut [u8], rows: [&[u8]; 3], channels: usize, factor: f32) {
    let len = out.len();
    let [[a0, a1, a2], [b0, b1, b2], [c0, c1, c2]] =
        rows.map(|row| [0, 1, 2].map(|i| &row[i * channels..][..len]));
    for i in 0..len {
        let around = [a0[i], a1[i], a2[i], b0[i], b2[i], c0[i], c1[i], c2[i]];
        let sum = around.iter().map(|&value| u32::from(value)).sum::<u32>() + 5 * u32::from(b1[i]);
        // A thirteenth, rounded: exact for sums to 3315, and there are no halves.
        let smooth = ((2 * sum + 13) * 20165) >> 19;
        out[i] = blend(smooth as u8, b1[i], factor);
    }
}

pub(super) fn hue(image: &mut Image, turn: f64) {
    if image.channels == 3 {
        let turn = (turn * 255.0) as i32 as u8;
        for pixel in image.pixels.as_chunks_mut::<3>().0 {
            let [h, s, v] = to_hsv(*pixel);
            *pixel = from_hsv([h.wrapping_add(turn), s, v]);
        }
    }
}

/// Hue, saturation and value, each over 0..=255.
fn to_hsv(rgb: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = rgb;
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let away = rgb.map(|value| f32::from(most - value) / range);
    let sixth = if r == most {
        away[2] - away[1]
    } else if g == most {
        (2.0 + f64::from(away[0]) - f64::from(away[2])) as f32
    } else {
        (4.0 + f64::from(away[1]) - f64::from(away[0])) as f32
    };
    let hue = ((f64::from(sixth) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(range / f32::from(most)) * 255.0) as u8, most]
}

fn from_hsv([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sixths = f64::from(h) * 6.0 / 255.0;
    let (sector, rest) = (sixths.floor(), f64::from((sixths - sixths.floor()) as f32));
    let (saturation, value) = (f64::from((f64::from(s) / 255.0) as f32), f64::from(v));
    let p = (value * (1.0 - saturation)).round() as u8;
    let q = (value * (1.0 - saturation * rest)).round() as u8;
    let t = (value * (1.0 - saturation * (1.0 - rest))).round() as u8;
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_thirteenth_is_exact() {
        for sum in 0..=13 * 255_u32 {
            assert_eq!(((2 * sum + 13) * 20165) >> 19, (2 * sum + 13) / 26, "{sum}");
        }
    }
}
