"""How far HuBERT's features by windows are from one pass over the whole recording.

    uv run python benchmarks/audio_window.py [--model hubert-base] [--weights DIR] [--seconds 60] [--windows 2+1 4+2]

The root mean square of the difference in units of the features' own deviation, for each window: of features in
the middle of their piece, of those at its edges, and of the same audio cut out as a stretch of ten seconds and
encoded as data does. Without --weights the weights are random in the published sizes: that says how the edges of a
window act through the layers, not how much of the distance matters to speech.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, table, write_result

from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.encoders.audio.hubert import Hubert, load
from df_models.encoders.registry import AudioWindow, audio_window, origin_of
from df_models.time import FPS, samples_for

SIZES = {
    "hubert-base": {},
    "hubert-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "conv_bias": True,
    },
}
"""What the published config.json files say beyond transformers' defaults."""
STRETCH_S = 10


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SIZES), default="hubert-base")
    parser.add_argument("--weights", default=None, help="a checkpoint of that form; random weights without it")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--windows", nargs="+", default=["1+1", "2+1", "2+2", "4+2", "8+2", "20+5", "0.16+4-0.2"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args()
    encoder = random_hubert(args.model) if args.weights is None else load(args.model, args.weights)
    frames = args.seconds * FPS
    wave_N = speech(frames)
    encoder.window = None
    whole_FD = encoder.encode(wave_N, frames)
    found: dict[str, tuple[float, ...]] = {}
    for stated in args.windows:
        window = audio_window(f"{args.model}@{stated}")
        assert window is not None
        found[stated] = differences(encoder, window, wave_N, whole_FD)
    kind = "random weights" if args.weights is None else "the weights given"
    head = ("window, s", "all", "middle of a piece", "its edges", f"a {STRETCH_S} s stretch alone")
    rows = [(stated, *(f"{value:.1%}" for value in values)) for stated, values in found.items()]
    text = (
        f"{args.seconds} s of synthetic speech, {kind}; root mean square of the difference to one pass over all of it"
    )
    text += f", the last to the windowed recording, over the features' own deviation.\n\n{table(head, rows)}"
    args.preset = args.model
    print(text)
    print(write_result(args.out, "audio-window", args, torch.device("cpu"), {"differences": found}, text))


def differences(
    encoder: Hubert, window: AudioWindow, wave_N: np.ndarray, whole_FD: torch.Tensor
) -> tuple[float, float, float, float]:
    """Return the difference of all features, of those in the middle half of their piece, of the rest, of a stretch.

    The last is that between the windowed recording and the same window over a stretch of it alone, as a build cuts it.
    """
    encoder.window = window
    frames = len(whole_FD) // 2
    windowed_FD = encoder.encode(wave_N, frames)
    place_F = torch.arange(2 * frames) // 2 % window.length
    middle_F = (place_F >= window.length // 4) & (place_F < window.length - window.length // 4)
    first = frames // 3
    stretch = encoder.encode(wave_N[samples_for(first) : samples_for(first + STRETCH_S * FPS)], STRETCH_S * FPS)
    there_FD = windowed_FD[2 * first : 2 * (first + STRETCH_S * FPS)]
    pairs = (
        (windowed_FD, whole_FD),
        (windowed_FD[middle_F], whole_FD[middle_F]),
        (windowed_FD[~middle_F], whole_FD[~middle_F]),
        (stretch, there_FD),
    )
    one, two, three, four = (float((a - b).square().mean().sqrt() / whole_FD.std()) for a, b in pairs)
    return one, two, three, four


def random_hubert(name: str) -> Hubert:
    """Return a HuBERT of the published sizes with random weights."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    return Hubert(HubertModel(HubertConfig(**SIZES[name])), origin_of(name), "random", normalize=True)


def speech(frames: int) -> np.ndarray:
    """Return 16 kHz synthetic speech of so many pixel frames, with pauses as sentences have them."""
    return make_speech(0, "train", make_voice(0), samples_for(frames)).wave


if __name__ == "__main__":
    main()
