"""The structure of a stored clip as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from df_data.cli import main
from df_data.format.shards import iter_samples
from df_models.motion import read_motion
from df_models.structure import FLAME_MOTION_59, SYNTHETIC_70, flame_motion


def test_a_clips_motion_goes_into_a_file_with_what_it_means(
    make_split: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    make_split(corpus, 3)
    sample = list(iter_samples(corpus / "train"))[1]
    out = tmp_path / "motion.npz"
    for more, tensor, layout in (
        ([], sample.tensors["structure"], SYNTHETIC_70),
        (["--flame"], flame_motion(sample.tensors["flame"]), FLAME_MOTION_59),
    ):
        assert main(["motion", str(corpus), "--key", sample.key, "--out", str(out), *more]) == 0
        motion = read_motion(out)
        assert motion.layout is not None and (motion.layout.name, motion.layout.encoder) == (layout.name, "synthetic")
        assert torch.equal(torch.from_numpy(motion.structure_PD), tensor)
    assert main(["motion", str(corpus / "train"), "--key", "nobody", "--out", str(out)]) == 2
    assert "no clip 'nobody'" in capsys.readouterr().err
