//! Numbers as text: short for labels, to six digits for tables.

/// Four significant digits, with an exponent for very small and very large values.
pub(super) fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if !v.is_finite() => v.to_string(),
        v if (1e-3..1e5).contains(&v.abs()) => {
            let digits = (3 - v.abs().log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{v:.digits$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        v => {
            let text = format!("{v:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            // There is a point: only zeros after it go.
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// Six significant digits; empty for NaN.
pub(super) fn cell(value: f64) -> String {
    if value.is_nan() {
        return String::new();
    }
    let rounded = format!("{value:.5e}").parse::<f64>();
    rounded.map_or_else(|_| value.to_string(), |rounded| rounded.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.5, 1234.0, 0.0123456, 1e-7, 0.0, -2.5].map(short);
        assert_eq!(numbers, ["0.5", "1234", "0.01235", "1e-7", "0", "-2.5"]);
        assert_eq!([200_000.0, 3.4e38, 1e10].map(short), ["2e5", "3.4e38", "1e10"]);
    }

    #[test]
    fn cells_have_six_digits_and_nan_is_empty() {
        let cells = [1.0 / 3.0, 1e-9, 160.0, f64::NAN].map(cell);
        assert_eq!(cells, ["0.333333", "0.000000001", "160", ""]);
    }
}
