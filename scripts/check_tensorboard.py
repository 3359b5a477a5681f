#!/usr/bin/env python3
"""Reads the event files of a directory with TensorBoard's own reader.

    pip install tensorboard
    python scripts/check_tensorboard.py DIR

Prints each tag with its number of points and its first and last step and value, and the settings that
the HPARAMS page shows. Exits 1 when there are no scalars, the steps of a tag go back or there are no
settings, 2 on wrong usage.
"""

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata


def settings(events):
    """Prints the settings of the HPARAMS page; returns whether the plugin can read them."""
    try:
        contents = events.PluginTagToContent(metadata.PLUGIN_NAME)
    except KeyError:
        return False
    start = contents.get(metadata.SESSION_START_INFO_TAG)
    experiment = contents.get(metadata.EXPERIMENT_TAG)
    if start is None or experiment is None:
        return False
    values = metadata.parse_session_start_info_plugin_data(start).hparams
    for info in metadata.parse_experiment_plugin_data(experiment).hparam_infos:
        value = values[info.name]
        print(f"{info.name}: {getattr(value, value.WhichOneof('kind'))!r}")
    if metadata.SESSION_END_INFO_TAG in contents:
        end = metadata.parse_session_end_info_plugin_data(contents[metadata.SESSION_END_INFO_TAG])
        print(f"ended with status {end.status}")
    return True


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
    if not settings(events):
        print("no settings for the HPARAMS page", file=sys.stderr)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
