//! Decodes the files whose names come on standard input, a line each, and writes for each a line of JSON, behind which
//! the pixels of an image follow. `fuzz/differential.py` compares them with Pillow's.

use std::io::{BufRead, Write};
use std::panic::catch_unwind;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

fn main() -> std::io::Result<()> {
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout().lock();
    for file in std::io::stdin().lock().lines() {
        let file = file?;
        let start = Instant::now();
        let decoded = catch_unwind(|| fixnorm_data::read_image(Path::new(&file)));
        let ms = start.elapsed().as_millis() as u64;
        let (line, pixels) = match decoded {
            Ok(Ok(image)) => {
                let shape = [image.height, image.width, image.channels];
                (json!({"file": file, "shape": shape, "ms": ms}), image.pixels)
            }
            Ok(Err(error)) => (json!({"file": file, "error": error.to_string(), "ms": ms}), vec![]),
            Err(_) => (json!({"file": file, "panic": true, "ms": ms}), vec![]),
        };
        writeln!(out, "{line}")?;
        out.write_all(&pixels)?;
    }
    out.flush()
}
