#!/bin/bash
# Makes the images of docs/report.md: trains two runs and a small dissection on the embedded data, and takes screenshots of
# their reports with Chromium. About five minutes on two cores. Needs chromium, and Python with Pillow to make the files small.
#
#   scripts/report_images.sh [WORK_DIR]      FIXNORM=target/release/fixnorm PYTHON=python3 CHROMIUM=chromium
set -euo pipefail
fixnorm=$(realpath "${FIXNORM:-target/release/fixnorm}")
chromium=${CHROMIUM:-chromium}
python=${PYTHON:-python3}
out=$(realpath docs/report)
work=${1:-$(mktemp -d)}
mkdir -p "$work" && cd "$work"

run() { [ -e "$1/result.json" ] || "$fixnorm" train --set train.epochs=6 --set log.risk_every_epochs=6 --out "$@" >/dev/null; }
run runs/fixnorm-lr0.2
run runs/weight-decay-5e-4-lr0.2 --set optimizer.constraint=free --set head.control=free --set optimizer.weight_decay=5e-4
"$fixnorm" dissect --seeds 2 --arms wd_all,fixnorm,alpha_x4 --set train.epochs=3 --out runs/dissect >/dev/null
"$fixnorm" report runs/fixnorm-lr0.2 runs/weight-decay-5e-4-lr0.2 -o runs.html
"$fixnorm" report runs/dissect -o dissection.html

# hover PAGE TITLE X Y: the page with the pointer at this share of the figure's width and height
hover() {
    "$python" - "$@" <<'PY'
import sys
page, title, x, y = sys.argv[1:]
script = """<script>addEventListener('load', () => {
  const figure = [...document.querySelectorAll('figure')].find(f => f.querySelector('b').textContent === %r);
  const svg = [...figure.querySelectorAll('.drawing > svg')].find(s => s.getBoundingClientRect().width > 0);
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent('pointermove', { bubbles: true,
    clientX: box.left + box.width * %s, clientY: box.top + box.height * %s }));
});</script></body>""" % (title, x, y)
text = open(page, encoding="utf-8").read()
open("hover-" + page, "w", encoding="utf-8").write(text.replace("</body>", script))
PY
}

# shot PAGE PNG WIDTH HEIGHT [FLAG…]
shot() {
    local page=$1 png=$2 size=$3,$4 profile
    shift 4
    profile=$(mktemp -d)
    "$chromium" --headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync \
        --disable-quic --no-first-run --hide-scrollbars --user-data-dir="$profile" --window-size="$size" "$@" \
        --screenshot="$png" "file://$PWD/$page" 2>/dev/null
    rm -rf "$profile"
}

hover runs.html "Validation accuracy" 0.58 0.4
shot hover-runs.html runs.png 1280 1100
# Chromium's windows are at least 500 wide: a phone's page in frames, three screens of it side by side.
cat >phone.html <<'HTML'
<style>body { margin: 0; display: flex; gap: 10px; background: #888 } div { height: 1000px; overflow: hidden }
iframe { width: 360px; height: 4600px; border: 0 }</style>
<div><iframe src="dissection.html"></iframe></div>
<div><iframe src="dissection.html" style="margin-top: -850px"></iframe></div>
<div><iframe src="dissection.html" style="margin-top: -2700px"></iframe></div>
HTML
shot phone.html dissection.png 1100 1000 --force-dark-mode --blink-settings=preferredColorScheme=0
for name in runs dissection; do
    "$python" -c "from PIL import Image; import sys; i = Image.open(sys.argv[1]).convert('RGB'); i.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)" \
        "$name.png" "$out/$name.png"
done
