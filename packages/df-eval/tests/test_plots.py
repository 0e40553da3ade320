"""Curves of a run's log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from df_eval.reports.plots import plot_losses


def test_held_out_losses_are_drawn_as_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: dict[str, tuple[list[float], str]] = {}
    plot = Axes.plot

    def noted(self: Axes, steps: np.ndarray, values: np.ndarray, **style: str):
        if "label" in style:
            drawn[style["label"]] = list(values), style.get("marker", "")
        return plot(self, steps, values, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    lines = [{"step": step, "loss": 1.0 / step, "val/loss": 1.0 / step} for step in range(1, 6)]
    assert plot_losses(lines, tmp_path / "loss.png", lambda name: name.endswith("loss"), "Loss")
    measured = [line["loss"] for line in lines]
    assert drawn["val/loss"] == (measured, ".")
    assert drawn["loss"][0] != measured and drawn["loss"][1] == "", "training's are smoothed"
