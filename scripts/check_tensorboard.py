#!/usr/bin/env python3
"""Reads the event files of a directory with TensorBoard's own reader.

    pip install tensorboard
    python scripts/check_tensorboard.py DIR

Prints each tag with its number of points and its first and last step and value. Exits 1 when there
are no scalars or the steps of a tag go back, 2 on wrong usage.
"""

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    # 0: keep every point, where the default thins them out.
    events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    events.Reload()
    tags = sorted(events.Tags()["scalars"])
    failed = not tags
    if failed:
        print(f"no scalars in {sys.argv[1]}", file=sys.stderr)
    for tag in tags:
        points = events.Scalars(tag)
        first, last = points[0], points[-1]
        print(
            f"{tag}: {len(points)} points, step {first.step} = {first.value:.6g}"
            f" to step {last.step} = {last.value:.6g}"
        )
        if any(a.step > b.step for a, b in zip(points, points[1:])):
            print(f"{tag}: steps go back", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
