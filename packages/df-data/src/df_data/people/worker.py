"""What a worker of ``df-data people`` does with one input; :mod:`df_data.build.pool` runs it as it runs a build's."""

from __future__ import annotations

from collections.abc import Iterator

from df_data.build.config import BuildConfig
from df_data.build.pool.faults import error_line, is_ours
from df_data.build.pool.messages import InputResult, MadeSample, Outcome
from df_data.format.sample import EncoderRecord
from df_data.people.look import few_frames, look_at
from df_data.sources.listing import Input
from df_data.stages.identity import MOBILEFACENET, FaceIdentity
from df_data.stages.rejection import Rejected
from df_models.encoders.face.face_detectors import load_face_detector
from df_models.errors import UserError

VECTOR = "vector"
"""Name of the one member that is made of an input."""


class PeopleModels:
    """Face detector and face recognition network.

    Raises:
        UserError: the config names no recognition network, or a file is missing.
    """

    def __init__(self, config: BuildConfig) -> None:
        if config.models.face_identity is None:
            raise UserError(f"models.face_identity: null, but people are told apart by it; {MOBILEFACENET.how_to_get}")
        self._other_face = config.stages.faces.other_face
        self._detector = load_face_detector(config.models.face_detector)
        self._network = FaceIdentity(config.models.face_identity.path)

    def records(self) -> dict[str, EncoderRecord]:
        """See :class:`df_data.build.pool.messages.Models`."""
        models = {"face_detector": self._detector, "identity": self._network}
        return {role: EncoderRecord(id=model.id, sha256=model.sha256) for role, model in models.items()}

    def close(self) -> None:
        """See :class:`df_data.build.pool.messages.Models`."""

    def process(self, made: Input) -> Iterator[Outcome]:
        """Yield the input's vector as a sample's only member, if there is one, and how the look ended."""
        try:
            look = look_at(few_frames(made.path), self._detector, self._network, self._other_face)
        except Rejected as rejected:
            yield InputResult("rejected", reason=rejected.reason, detail=rejected.detail)
        except Exception as error:
            if is_ours(error):
                raise
            yield InputResult("failed", error=error_line(error, made.path))
        else:
            yield MadeSample(made.key, {VECTOR: look.vector.astype("<f4").tobytes()})
            scores = {"faces": float(look.faces)}
            scores |= {} if look.agreement is None else {"agreement": look.agreement}
            yield InputResult("accepted", scores=scores, samples=(made.key,))
