"""Looks that see what an input's text says, in a module that worker processes can import by its name.

``face ANGLE``: a vector in the plane, at so many degrees; ``none``, ``crowd``: refused; ``fail``; ``die``: a crash.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np

from df_data.build.config import BuildConfig
from df_data.build.pool.messages import InputResult, MadeSample, Outcome
from df_data.format.sample import EncoderRecord
from df_data.people.worker import VECTOR
from df_data.sources.listing import Input

SEEN: list[str] = []
"""Names of the inputs that were looked at in this process."""


class FakeLooks:
    def __init__(self, config: BuildConfig) -> None:
        self.config = config

    def records(self) -> dict[str, EncoderRecord]:
        return {"identity": EncoderRecord(id="fake", sha256="0")}

    def close(self) -> None:
        pass

    def process(self, made: Input) -> Iterator[Outcome]:
        SEEN.append(made.name)
        what, *values = made.path.read_text().split() if made.path.is_file() else ["fail"]
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "face":
            angle = np.radians(float(values[0]))
            vector = np.array([np.cos(angle), np.sin(angle)], dtype="<f4")
            yield MadeSample(made.key, {VECTOR: vector.tobytes()})
            yield InputResult("accepted", scores={"faces": 5.0, "agreement": 0.9}, samples=(made.key,))
        elif what == "fail":
            yield InputResult("failed", error="cannot be decoded")
        else:
            reason = {"none": "no_face", "crowd": "more_than_one_face"}[what]
            yield InputResult("rejected", reason=reason, detail="a line")
