"""Turned, sideways and mirrored videos: what stands upright, and which way a head is said to turn.

Shape legend: T frames, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.stages.files import FileFormat, write_file
from benchmarks.stages.mirror import mirror_structure
from benchmarks.stages.scene import Scene
from benchmarks.stages.tables import Section, table
from benchmarks.stages.talks import Models, Talk, read_talk
from df_data.stages.decode import decode_clip
from df_data.stages.gaps import fill_gaps
from df_data.stages.measure import measure as measure_clip
from df_data.stages.quality import QualityFilter
from df_data.stages.readings import structure_vectors
from df_data.stages.rejection import Rejected
from df_models.structure import LIVEPORTRAIT_70

UPRIGHT_DB = 30.0
"""PSNR from which a decoded image is the one that was meant; any other way up has less than 20 dB."""


def turned_file(turn: int, flipped: bool, scene: Scene, images: np.ndarray, folder: Path) -> np.ndarray:
    """Write images turned and mirrored with the flags that undo it; return what is decoded."""
    made = FileFormat("turned", turn=turn, flipped=flipped)
    times = np.arange(len(images)) / 25
    write_file(folder / "turned.mp4", made, scene, list(images), times)
    return decode_clip(folder / "turned.mp4").frames


def psnr(found: np.ndarray, meant: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, 0 of images of another shape."""
    if found.shape != meant.shape:
        return 0.0
    return float(-10 * np.log10(np.square(found / 255.0 - meant / 255.0).mean() + 1e-12))


def mirrored_fields(talk: Talk, models: Models) -> dict[str, tuple[float, float]]:
    """Read a clip and its mirror image; return, by field, correlation and slope of the second against what
    :func:`benchmarks.stages.mirror.mirror_structure` makes of the first."""
    first = torch.from_numpy(structure_vectors(talk.landmarks))
    seen = fill_gaps(models.reader.landmarks(np.ascontiguousarray(talk.frames[:, :, ::-1])), 2)
    second = structure_vectors(seen)
    meant = mirror_structure(first).numpy()
    found = {}
    for name in ("yaw", "pitch", "roll", "translation", "expression"):
        part = LIVEPORTRAIT_70.slice(name)
        columns = slice(part.start, part.start + 1) if name == "translation" else part
        a, b = meant[:, columns].ravel().astype(np.float64), second[:, columns].ravel().astype(np.float64)
        a, b = a - a.mean(), b - b.mean()
        found["translation x" if name == "translation" else name] = (
            float(a @ b / np.sqrt((a @ a) * (b @ b))), float(a @ b / (a @ a)),
        )  # fmt: skip
    return found


def true_angles(talks: Sequence[Talk]) -> dict[str, tuple[float, float, float]]:
    """Return, by angle, correlation and slope of the reading against the truth and the mean absolute error, degrees.

    Clips of many people are taken together, so that the range is that of the corpus.
    """
    found = {}
    for name in ("yaw", "pitch", "roll"):
        truth = np.concatenate([talk.known.truth[name] for talk in talks if talk.known is not None]).astype(np.float64)
        read = np.concatenate([getattr(talk.readings, name) for talk in talks if talk.known is not None])
        slope = np.polyfit(truth, read, 1)[0]
        found[name] = (float(np.corrcoef(truth, read)[0, 1]), float(slope), float(np.abs(truth - read).mean()))
    return found


def sideways(talk: Talk, models: Models, turn: int) -> str:
    """Return why a clip that lies on its side without a flag is refused, or the weight that it is taken with."""
    frames = np.ascontiguousarray(np.rot90(talk.source, turn // 90, axes=(1, 2)))
    try:
        read = read_talk(talk.name, frames, talk.wave, models)
        found = measure_clip(read.frames, read.wave, read.readings, models.detector, QualityFilter())
    except Rejected as refused:
        return f"`{refused.reason}`"
    return f"taken, weight {found.weight:g}"


def measure(sets: Mapping[str, Sequence[Talk]], models: Models, folder: Path) -> Section:
    """Turn, mirror and read."""
    figures: dict[str, object] = {}
    scene = Scene.make(1, 1, 2.2)
    images = scene.images(np.arange(55) / 25, 128)
    flags = []
    for turn in (0, 90, 180, 270):
        for flipped in (False, True):
            quality = psnr(turned_file(turn, flipped, scene, images, folder), images)
            flags.append([f"{turn}", "yes" if flipped else "no", "yes" if quality > UPRIGHT_DB else "no"])
            figures[f"flag {turn} {flipped}"] = quality
    mirrored, lying = [], []
    for name, talks in sets.items():
        read = [mirrored_fields(talk, models) for talk in talks[:8]]
        for field in read[0]:
            r, slope = (float(np.median([one[field][i] for one in read])) for i in (0, 1))
            mirrored.append([field, name, len(read), f"{r:.3f}", f"{slope:.2f}"])
            figures[f"mirrored {name} {field}"] = {"correlation": r, "slope": slope}
        for turn in (90, 180, 270):
            said = [sideways(talk, models, turn) for talk in talks[:8]]
            counts = ", ".join(f"{said.count(kind)} {kind}" for kind in sorted(set(said)))
            lying.append([turn, name, len(said), counts])
            figures[f"sideways {name} {turn}"] = counts
    angles = [
        [name, f"{r:.3f}", f"{slope:.2f}", f"{error:.1f}"]
        for name, (r, slope, error) in true_angles(sets["rendered"]).items()
    ]
    parts = [
        "Files whose display matrix asks for a turn, and a mirror after it; upright means above 30 dB:",
        table(("turn by (degrees)", "mirror", "decoded as meant"), flags),
        "The reading of a mirrored clip against the mirrored reading (`benchmarks.stages.mirror`), median over clips "
        "(GRID's heads turn by less than a degree within a clip, so noise of the reading weighs more there):",
        table(("field", "clips of", "clips", "correlation", "slope"), mirrored),
        "Angles read of rendered heads against the truth:",
        table(("angle", "correlation", "slope", "mean error (degrees)"), angles),
        "Clips that lie on their side or head without a flag:",
        table(("turned by (degrees)", "clips of", "clips", "what becomes of them"), lying),
    ]
    return Section("Turned and mirrored videos", "\n\n".join(parts), figures)
