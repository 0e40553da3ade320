"""Where somebody speaks: Silero's voice activity detector over a clip's audio.

Source: snakers4/silero-vad (MIT). Its Python package carries the network as ONNX files; the one for whole sequences is
run here by onnxruntime, and the package itself is not imported (its import sets torch's threads). It reads 512 samples
at a time, each with the 64 before it, and carries the state of its LSTM along (``silero_vad/sequence_vad.py``).

Shape legend: N samples at 16 kHz, W = ceil(N / 512) windows of 32 ms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pydantic import Field

from df_data.stages.rejection import Rejected
from df_models.encoders.onnx_files import open_onnx
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.settings import FrozenModel
from df_models.time import SAMPLE_RATE

WINDOW = 512
CONTEXT = 64
STATE = (1, 1, 128)
FILE = "silero_vad_16k_sequence.onnx"
HOW_TO_GET = "install df-data[video] (the package silero-vad, 6.2.3 or later, carries the file)"


class VoiceFilter(FrozenModel):
    """How much of a clip must be speech.

    Attributes:
        enabled: off, no voice is looked for; the scores ``speech_share`` and ``longest_pause`` do not exist then.
        threshold: least probability of a window with speech (Silero's own default).
        min_share: least share of the windows with speech; below it ``too_little_speech``. A quarter: the sparsest of
            257 GRID sentences, with its silent lead-in and end, has 0.33; a street, white noise and chords have none.
        max_pause: longest stretch without speech in seconds, beyond it ``long_pause``; none allows any.
    """

    enabled: bool = True
    threshold: float = Field(default=0.5, gt=0, lt=1)
    min_share: float = Field(default=0.25, ge=0, le=1)
    max_pause: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class VoiceActivity:
    """Speech in a clip.

    Attributes:
        speech: bool [W], for each window of 512 samples.
        scores: ``speech_share`` of the windows, ``longest_pause`` in seconds (silence at the ends counts).
    """

    speech: np.ndarray
    scores: dict[str, float]


class SileroVAD:
    """The network; the same audio always gives the same probabilities.

    Args:
        path: the ONNX file for sequences at 16 kHz; by default the one inside the installed package.

    Raises:
        UserError: onnxruntime or the file is missing, or the file is another network.
    """

    id = "silero-vad"
    licence = "MIT"

    def __init__(self, path: str | Path | None = None) -> None:
        path = packaged_file() if path is None else Path(path)
        try:
            self._session = open_onnx(path, "the voice detector", HOW_TO_GET)
        except ImportError as error:
            raise UserError(f"the voice detector needs onnxruntime ({error}); install df-data[video]") from error
        if {given.name for given in self._session.get_inputs()} != {"input", "h", "c"}:
            raise UserError(f"{path} is not Silero's network for sequences (other inputs); {HOW_TO_GET}")
        self.sha256 = sha256_file(path)

    def probabilities(self, wave_N: np.ndarray) -> np.ndarray:
        """Return the probability of speech in each window of float32 audio, float32 ``[W]``; the end is padded."""
        count = -(-len(wave_N) // WINDOW)
        if not count:
            return np.zeros(0, dtype=np.float32)
        padded = np.zeros(CONTEXT + count * WINDOW, dtype=np.float32)
        padded[CONTEXT : CONTEXT + len(wave_N)] = wave_N
        windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]
        state = np.zeros(STATE, dtype=np.float32)
        given = {"input": np.ascontiguousarray(windows), "h": state, "c": state}
        return np.asarray(self._session.run(["speech_probs"], given)[0])


@functools.cache
def silero_vad() -> SileroVAD:
    """Return this process's detector, made when it is first asked for."""
    return SileroVAD()


def packaged_file() -> Path:
    """Return where the installed package silero-vad has its network.

    Raises:
        UserError: the package is not installed.
    """
    found = find_spec("silero_vad")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"voice activity needs the package silero-vad; {HOW_TO_GET}")
    return Path(found.submodule_search_locations[0]) / "data" / FILE


def find_voice(wave_N: np.ndarray, detector: SileroVAD, filters: VoiceFilter) -> VoiceActivity:
    """Mark the windows with speech."""
    speech = detector.probabilities(wave_N) >= filters.threshold
    share = float(speech.mean()) if len(speech) else 0.0
    return VoiceActivity(speech, {"speech_share": share, "longest_pause": longest_run(~speech) * WINDOW / SAMPLE_RATE})


def check_voice(scores: dict[str, float], filters: VoiceFilter) -> None:
    """Refuse a clip in which hardly anybody speaks.

    Raises:
        Rejected: ``too_little_speech``, ``long_pause``.
    """
    if scores["speech_share"] < filters.min_share:
        raise Rejected("too_little_speech", f"speech in only {scores['speech_share']:.0%} of the clip", scores)
    if filters.max_pause is not None and scores["longest_pause"] > filters.max_pause:
        raise Rejected("long_pause", f"no speech for {scores['longest_pause']:.1f} s", scores)


def longest_run(flags: np.ndarray) -> int:
    """Return the length of the longest run of true entries."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
