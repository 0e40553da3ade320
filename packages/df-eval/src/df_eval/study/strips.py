"""Qualitative strips for a paper: a clip's truth and what each arm made of it, at the same times.

The images are those of the side-by-side videos that df-eval left in the first run of each arm; nothing is generated.

Shape suffixes: T frames, H W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from df_eval.reports.videos import HEADER
from df_eval.study.figures import label_text
from df_models.media import read_video
from df_models.time import FPS

TRUTH = "truth"
IMAGES = 7
MOST_CLIPS = 2
"""Clips with a strip: a page of a paper has room for few."""


def shown_videos(document: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """The side-by-side videos by name (length and clip) and arm: of each arm's first run, the longest length, those
    that every arm has."""
    found = {arm: {path.stem: path for path in place.glob("*.mp4")} for arm, place in _places(document).items()}
    if not found:
        return {}
    common = set.intersection(*(set(videos) for videos in found.values()))
    longest = max((_frames(name) for name in common), default=0)
    names = sorted(name for name in common if _frames(name) == longest)[:MOST_CLIPS]
    return {name: {arm: videos[name] for arm, videos in found.items()} for name in names}


def why_no_strips(document: Mapping[str, Any]) -> str:
    """Why there is no strip; empty: there are some."""
    if shown_videos(document):
        return ""
    places = _places(document)
    bare = [f"{arm} ({place})" for arm, place in places.items() if not any(place.glob("*.mp4"))]
    if not places:
        return "no arm is measured"
    return f"no videos of {', '.join(bare)}" if bare else "no clip is shown in every arm's first run"


def _places(document: Mapping[str, Any]) -> dict[str, Path]:
    """Where the videos of each arm's first run are, by arm."""
    arms = [name for name, arm in document["arms"].items() if arm["measured"]]
    places: dict[str, Path] = {}
    for run in document["runs"]:
        if run["arm"] in arms and run["state"] == "done" and run["seed"] is not None:
            places.setdefault(run["arm"], Path(run["place"]) / "eval" / "videos")
    return places


def _frames(name: str) -> int:
    """The length that a video's name begins with."""
    length = name.partition("-")[0]
    return int(length) if length.isdigit() else 0


def strip_of(videos: Mapping[str, Path]) -> Figure:
    """A line of images for the truth and one for each arm, with the times above.

    Raises:
        UserError: a video cannot be read.
    """
    columns = {arm: columns_of(read_video(path)[0]) for arm, path in videos.items()}
    lines = [(TRUTH, next(iter(columns.values()))[0]), *((arm, found[-1]) for arm, found in columns.items())]
    picks = np.linspace(0, min(len(video) for _, video in lines) - 1, IMAGES).round().astype(int)
    figure = Figure(figsize=(IMAGES, len(lines)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)  # type: ignore[union-attr]
    panels_of = figure.subplots(len(lines), IMAGES, squeeze=False)
    for line, (panels, (name, video)) in enumerate(zip(panels_of, lines, strict=True)):
        for panel, pick in zip(panels, picks, strict=True):
            panel.imshow(video[pick], interpolation="none")
            panel.set_xticks([])
            panel.set_yticks([])
            if line == 0:
                panel.set_title(f"{pick / FPS:.2f} s", fontsize=7)
        panels[0].set_ylabel(label_text(name), fontsize=7)
    return figure


def columns_of(frames_THWC: np.ndarray) -> list[np.ndarray]:
    """The square videos of a side-by-side video, without the names over them; the first is the truth's, the last what
    was made."""
    side = frames_THWC.shape[1] - HEADER
    count = round(frames_THWC.shape[2] / side)
    return [frames_THWC[:, HEADER:, index * side : (index + 1) * side] for index in range(count)]
