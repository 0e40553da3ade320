"""Measure the reader: ``uv run python -m benchmarks.synth.reader_report --out docs/results/synthetic-reader.md``.

Fresh renders of people that the reader was not trained on, clean, blurred, with noise, through a video VAE by choice.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.synth.reader_augment import gaussian_blur, negatives
from benchmarks.synth.reader_data import ReaderSet, random_set
from df_data.synth.head.face_state import FaceTracks, random_tracks
from df_data.synth.head.identity import Identity, hashed_generator, identity_vector
from df_data.synth.head.render import render
from df_data.synth.head.structure import truths
from df_data.synth.reader import SynthReader, SynthReadings, identity_distance, load_reader
from df_data.synth.reader.model import READINGS
from df_models.cli_support import run_cli
from df_models.encoders import load_video_vae
from df_models.files import atomic_write, check_output

TEST_IDENTITIES = 20_000_000
"""First identity of the report: neither a corpus nor the training of the reader comes near."""
BLURS, NOISES = (0.0, 1.0, 2.0), (0.0, 0.02, 0.05)


@dataclass(frozen=True)
class ReaderErrors:
    """Errors of one condition: mean absolute error and correlation per reading, the identity distance between two
    images of one person and of two people, the error of the identity against the truth, and the share of images
    with ``presence > 0.5``."""

    mae: dict[str, float]
    correlation: dict[str, float]
    same_person: float
    other_person: float
    identity_error: float
    present: float


def measure(reader: SynthReader, images: Tensor, data: ReaderSet) -> ReaderErrors:
    """Compare readings of ``images`` float ``[N, 3, H, W]`` with the truths of ``data``."""
    found = reader.read(images)
    mae, correlation = {}, {}
    for column, name in enumerate(READINGS):
        truth, read = data.readings[:, column], getattr(found, name)
        mae[name] = float(np.abs(truth - read).mean())
        correlation[name] = float(np.corrcoef(truth, read)[0, 1])
    distance = identity_distance(found.identity[:, None], found.identity[None])
    same = data.person[:, None] == data.person[None]
    apart = ~np.eye(len(same), dtype=bool)
    error = identity_distance(found.identity, data.identity).mean()
    return ReaderErrors(
        mae,
        correlation,
        float(distance[same & apart].mean()),
        float(distance[~same].mean()),
        float(error),
        float((found.presence > 0.5).mean()),
    )


def as_images(data: ReaderSet) -> Tensor:
    """Frames of a set as float ``[N, 3, H, W]`` in [0, 1]."""
    return torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255


def disturbed(images: Tensor, blur: float, noise: float, seed: int = 0) -> Tensor:
    """Blur (standard deviation in pixels), then add noise (standard deviation in shares of white)."""
    generator = torch.Generator().manual_seed(seed)
    return (gaussian_blur(images, blur) + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def smooth_clips(people: int, frames: int) -> tuple[ReaderSet, list[np.ndarray]]:
    """Clips of unseen people whose states glide between random ones; also the clips' frames for a video VAE."""
    sets, clips = [], []
    for number in range(people):
        identity = Identity.sample(TEST_IDENTITIES + number)
        rng = hashed_generator("reader-clips", number)
        knots = random_tracks(rng, 2 + frames // 5).as_array()
        position = np.linspace(0, len(knots) - 1.001, frames)
        low = position.astype(int)
        share = (position - low)[:, None]
        glide = (1 - share) * knots[low] + share * knots[low + 1]
        glide[:, 13:] = knots[0, 13:]
        tracks = FaceTracks(*glide.T)
        truth = truths(identity, tracks)
        readings = np.stack([truth[name] for name in READINGS], axis=1)
        images = render(identity, tracks).frames
        person = np.full(frames, TEST_IDENTITIES + number)
        sets.append((images, readings, np.repeat(identity_vector(identity)[None], frames, 0), person))
        clips.append(images)
    return ReaderSet(*(np.concatenate(parts) for parts in zip(*sets))), clips


def _through_vae(name: str, people: int) -> tuple[ReaderSet, Tensor, Tensor]:
    data, clips = smooth_clips(people, 33)
    vae = load_video_vae(name)
    before, after = [], []
    with torch.inference_mode():
        for clip in clips:
            video = torch.from_numpy(clip).permute(0, 3, 1, 2)[None].float() / 255
            before.append(video[0])
            after.append(vae.decode(vae.encode(video))[0].float().clamp(0, 1))
    return data, torch.cat(before), torch.cat(after)


def _row(name: str, errors: ReaderErrors) -> str:
    cells = [name]
    cells += [f"{errors.mae[n]:.2f}" for n in ("yaw", "pitch", "roll")]
    cells += [f"{errors.mae[n]:.4f} ({errors.correlation[n]:.3f})" for n in ("mouth_open", "lip_width")]
    cells += [f"{errors.mae['blink']:.3f} ({errors.correlation['blink']:.3f})"]
    cells += [f"{errors.same_person:.2f} / {errors.other_person:.2f}", f"{errors.identity_error:.2f}"]
    return "| " + " | ".join([*cells, f"{100 * errors.present:.1f} %"]) + " |"


_COLUMNS = ("condition", "yaw", "pitch", "roll", "mouth opening (r)", "lip width (r)", "blink (r)")
_COLUMNS += ("same / other person", "identity error", "present")
_TABLE_HEAD = "| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|"
_INTRODUCTION = """\
# The reader of the synthetic corpus: measured errors

{people} people that the reader was not trained on, {states} random independent states each (pose, articulators, light),
64x64. Mean absolute errors: angles in degrees, the mouth's opening in shares of the face's height, its width in shares
of the face's width, blink from 0 to 1; correlation with the truth in brackets. Identity distance is the RMS difference
of standardised identity vectors, between two images of one person and of two people, and to the true vector. Blur and
noise are standard deviations in pixels and in shares of white.

Command: `{command}`. Weights: sha256 `{sha256}`.
"""


def _negatives_line(reader: SynthReader, images: Tensor) -> str:
    generator = torch.Generator().manual_seed(1)
    found: SynthReadings = reader.read(negatives(images, generator))
    kinds = ("shuffled tiles", "blur beyond recognition", "upside down", "noise", "no face in the image")
    shares = [f"{kind} {100 * float((found.presence[i::5] < 0.5).mean()):.1f} %" for i, kind in enumerate(kinds)]
    return "Images rejected by `presence < 0.5`: " + ", ".join(shares) + "."


def report(reader: SynthReader, people: int, states: int, vae: str | None, command: str) -> str:
    """The whole report as Markdown."""
    data = random_set(99, people, states, TEST_IDENTITIES)
    images = as_images(data)
    rows = [
        _row(f"blur {blur:g}, noise {noise:g}", measure(reader, disturbed(images, blur, noise), data))
        for blur in BLURS
        for noise in NOISES
    ]
    text = _INTRODUCTION.format(people=people, states=states, command=command, sha256=reader.sha256)
    parts = [text, _TABLE_HEAD, *rows, "", _negatives_line(reader, images)]
    if vae:
        clip_data, before, after = _through_vae(vae, max(4, people // 8))
        psnr = -10 * torch.log10((before - after).square().mean()).item()
        parts += ["", f"Clips of 33 frames with gliding states, through the video VAE `{vae}` ({psnr:.1f} dB):", ""]
        parts += [_TABLE_HEAD, _row("as rendered", measure(reader, before, clip_data))]
        parts += [_row("reconstructed", measure(reader, after, clip_data))]
    return "\n".join(parts) + "\n"


def _main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synth.reader_report", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/synthetic-reader.md"), help="Markdown to write")
    parser.add_argument("--people", type=int, default=160, help="unseen people (default 160)")
    parser.add_argument("--states", type=int, default=8, help="random states of each (default 8)")
    parser.add_argument("--vae", help="also measure on reconstructions of this video VAE, for example df-tiny")
    parser.add_argument("--weights", type=Path, help="another reader than the shipped one")
    options = parser.parse_args(argv)
    check_output(options.out, inputs=[] if options.weights is None else [options.weights])
    command = " ".join(["uv run python -m benchmarks.synth.reader_report", *argv])
    text = report(load_reader(options.weights), options.people, options.states, options.vae, command)
    atomic_write(options.out, text)
    print(text)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_cli(_main, "reader_report", argv)


if __name__ == "__main__":
    raise SystemExit(main())
