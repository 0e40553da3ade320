"""From a portrait and speech to frames: encoders, rollout and decoder as one stream.

Shape legend: H, W pixels, P pixel frames, N samples, C latent frames of a chunk, S = 4 slots, D features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from df_infer.clip_decoder import ClipDecoder, GeneratedClip
from df_infer.hearing.loudness import levelled
from df_infer.hearing.speech import audio_pieces, frames_covering
from df_infer.one_ahead import one_ahead
from df_infer.portrait import NO_CROP, portrait_from
from df_infer.rollout import Rollout, RolloutConfig, stream_latents, text_input, warn_of_latency
from df_infer.run_dir import UNTOLD, Trained, find_adapter, open_run
from df_infer.sampling.drive import Drive, check_drive, check_makes_structure, check_saw_clean
from df_infer.sampling.guidance import check_guidance
from df_infer.sampling.structure_from import check_maker, check_no_truth, found, raw_structure
from df_infer.sampling.whole_clip import check_levels
from df_infer.threads import check_threads, suited_threads
from df_models import DualForce, DualForceConfig
from df_models.device import choose_device
from df_models.encoders import (
    AudioEncoder,
    AudioPool,
    ReferenceEncoder,
    TextEncoder,
    VideoVAE,
    load_audio_encoder,
    load_reference_encoder,
    load_text_encoder,
    load_video_vae,
)
from df_models.errors import UserError
from df_models.float8 import generate_in_float8
from df_models.machine import Precision, choose_precision
from df_models.model.adapter import add_adapter, read_adapter, weights_hash
from df_models.motion import Motion, motion_slots
from df_models.text import Prompt, prompt_rows, read_prompt
from df_models.time import latent_length, pooled_width

T = TypeVar("T")


class EncodedPortrait(NamedTuple):
    """A portrait as the model reads it: latent ``[1, 16, h, w]`` and tokens ``[1, N, D_r]``; None what it does not."""

    latent: Tensor | None
    tokens: Tensor | None


@dataclass
class Pipeline:
    """A model with the frozen encoders that it needs, ready to generate.

    Attributes:
        vae, reference_encoder: None for a model without video.
        audio_encoder: None for one that hears nothing.
        rollout: default settings; any call can give others.
        face_detector: file of the face detector, for models whose portraits are cropped around the face.
        prompt: what a model that reads text is told; None for others.
        trained: how the model was trained, as far as its run tells.
        float8: the model's layers multiply in float8 (:func:`df_models.float8.generate_in_float8`).
        beside: a chunk is denoised while the one before is decoded (:func:`df_infer.one_ahead.one_ahead`). The frames
            are the same, and come sooner where a core is idle else.
    """

    model: DualForce
    vae: VideoVAE | None
    audio_encoder: AudioEncoder | None
    reference_encoder: ReferenceEncoder | None
    rollout: RolloutConfig
    face_detector: str | Path | None = None
    prompt: Prompt | None = None
    trained: Trained = UNTOLD
    float8: bool = False
    beside: bool = False
    _makers: dict[str, Pipeline] = field(default_factory=dict, repr=False)

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        *,
        prompt: str | None = None,
        face_detector: str | Path | None = None,
        vae: VideoVAE | None = None,
        checkpoint: int | None = None,
        adapter: str | Path | None = None,
        compiled: bool = False,
    ) -> Pipeline:
        """Load a run directory or a model directory.

        Args:
            device: as of :func:`df_models.device.choose_device`.
            dtype: of the model: ``float32``, ``bfloat16``, ``float8`` or ``auto``
                (:func:`df_models.machine.choose_precision`). The VAE stays in float32.
            prompt: for a model that reads text; its text encoder is loaded into the processor's memory for as long as
                encoding it takes. By default the run's own, which training left beside the weights, encoded.
            face_detector: see the class.
            vae: one that is loaded already, instead of the one that the model's config names; taken as it is.
            checkpoint: step of the run's milestone to load instead of its final model.
            adapter: directory of a low-rank adapter (or of a run that trained one) to add to the model's weights.
            compiled: compile the model's step (:meth:`df_models.DualForce.compile_step`), for long generations.

        Raises:
            UserError: the directory is no run, or an encoder, device or dtype is not there; a prompt for a model that
                reads no text; an adapter of another model.
        """
        run = open_run(path, checkpoint)
        target = choose_device(device)
        model = DualForce.from_pretrained(run.model)
        if adapter is not None:
            add_adapter(model, read_adapter(find_adapter(adapter)), weights_hash(run.model))
        precision = choose_precision(dtype, target)
        model = model.to(target, precision.dtype).eval()
        if precision.float8:
            generate_in_float8(list(model.layers()))
        model.join_products()
        if compiled:
            model.compile_step()
        config, sees = model.config, model.config.has_video
        pipeline = cls(
            model,
            (vae or load_video_vae(config.video_vae)).to(target) if sees else None,
            load_audio_encoder(config.audio_encoder).to(target) if config.audio_dim else None,
            load_reference_encoder(config.reference_encoder).to(target) if sees else None,
            run.rollout,
            face_detector,
            _choose_prompt(prompt, run.prompt, config),
            run.trained,
            precision.float8,
        )
        if vae is None and pipeline.vae is not None:
            check_weights(config, "video_vae", pipeline.vae)
        check_encoders(config, pipeline.audio_encoder, pipeline.reference_encoder)
        return pipeline

    def take_threads(self, threads: int | None = None) -> None:
        """Have torch compute with so many CPU threads in this process; by default, with as many as suit the model.

        The commands do so. With more, a model of small layers is several times slower beside anything else that runs
        (:func:`df_infer.threads.suited_threads`).

        Raises:
            UserError: none, or more than there are cores.
        """
        if threads is not None:
            check_threads(threads)
        elif self.model.device.type == "cpu":
            threads = suited_threads(self.model.config, self.rollout)
        if threads is not None:
            torch.set_num_threads(threads)

    @property
    def precision(self) -> str:
        """What the model computes in: ``float32``, ``bfloat16`` or ``float8``."""
        return Precision(self.model.dtype, "as loaded", self.float8).name

    @property
    def looks_for_faces(self) -> bool:
        """Whether a portrait is cropped around its face; else it is the middle square, whatever that shows."""
        return self.model.config.face_crop != NO_CROP

    def portrait(self, image_HWC: np.ndarray, *, cropped: bool = False) -> np.ndarray:
        """Crop an image as the model's training clips were cropped; ``cropped`` only takes the centre square."""
        rule = NO_CROP if cropped else self.model.config.face_crop
        return portrait_from(image_HWC, self.size, rule, self.face_detector)

    @property
    def video_vae(self) -> VideoVAE:
        """The VAE of a model with video.

        Raises:
            UserError: the model has none.
        """
        if self.vae is None:
            raise UserError("the model makes structure alone (streams=structure): there is no video")
        return self.vae

    @property
    def size(self) -> int:
        """Side of the generated video in pixels."""
        return self.model.config.video_size

    def generate(
        self,
        image_HWC: np.ndarray | None,
        wave_N: np.ndarray | None,
        *,
        num_frames: int | None = None,
        seed: int = 0,
        rollout: RolloutConfig | None = None,
        cropped: bool = False,
        keep_level: bool = False,
        motion: Motion | None = None,
        fields: tuple[str, ...] = (),
    ) -> Iterator[np.ndarray]:
        """Yield the video frame by frame, uint8 ``[H, W, 3]``; the arguments are those of :meth:`stream`."""
        clips = self.stream(
            image_HWC,
            wave_N,
            num_frames=num_frames,
            seed=seed,
            rollout=rollout,
            cropped=cropped,
            keep_level=keep_level,
            motion=motion,
            fields=fields,
        )
        return (frame for clip in clips for frame in clip.frames)

    def stream(
        self,
        image_HWC: np.ndarray | None,
        wave_N: np.ndarray | None,
        *,
        num_frames: int | None = None,
        seed: int = 0,
        rollout: RolloutConfig | None = None,
        cropped: bool = False,
        keep_level: bool = False,
        motion: Motion | None = None,
        fields: tuple[str, ...] = (),
    ) -> Generator[GeneratedClip, None, None]:
        """Yield frames and structure as they are decoded, one latent frame at a time, in constant memory.

        Whoever stops before the end should close it, as ``contextlib.closing`` does: with :attr:`beside` a chunk is
        being made meanwhile.

        Args:
            image_HWC: the portrait, uint8 RGB of any size; None for a model without video.
            wave_N: speech, float32 mono at 16 kHz; it may be None for a model that hears nothing.
            num_frames: pixel frames to make, 1 + 4 n; by default the fewest that last as long as the audio.
            seed: keys all noise.
            rollout: settings instead of the run's own.
            cropped: the portrait is cropped already.
            keep_level: the speech is heard at its own level, however quiet or loud (:mod:`df_infer.hearing.loudness`).
            motion: a track that the structure is given from (:func:`df_models.motion.read_motion`), at least as long as
                the video; the rest is generated. It goes before ``rollout.structure_from``.
            fields: names of the fields to give; none: all.

        Raises:
            UserError: at once, before the first frame, if an argument is wrong.
        """
        if wave_N is None and (num_frames is None or self.audio_encoder is not None):
            raise UserError("there is no audio; only a model that hears none goes without it, given the frames to make")
        count = num_frames
        if count is None:
            count = frames_covering(wave_N if wave_N is not None else np.zeros(0))
        if fields and motion is None:
            raise UserError("fields name what to give of a motion, but there is no motion; give one (--drive)")
        given = None if motion is None else motion_slots(motion, self.model.config, count, "the given motion")
        own = rollout or self.rollout
        drive = (
            Drive(given, fields)
            if given is not None
            else self._made_structure(
                image_HWC, wave_N, own, num_frames=count, seed=seed, cropped=cropped, keep_level=keep_level
            )
        )
        if drive is not None:
            check_drive(self.model.config, fields, warn=False)  # where it is given it is warned of
            if not fields:
                check_saw_clean(self.trained)
        rollouts = self.rollouts(
            image_HWC,
            wave_N,
            own,
            num_frames=count,
            seed=seed,
            cropped=cropped,
            keep_level=keep_level,
            drive=drive,
        )
        return self._decode(rollouts)

    def _made_structure(
        self, image_HWC: np.ndarray | None, wave_N: np.ndarray | None, rollout: RolloutConfig, **others: Any
    ) -> Drive | None:
        """Structure that the model of ``rollout.structure_from`` makes of the same speech and portrait."""
        if rollout.structure_from is None:
            check_makes_structure(self.model.config)
            return None
        check_no_truth(rollout)
        maker = self.maker(rollout.structure_from)
        seen = image_HWC if maker.model.config.has_video else None
        return Drive(raw_structure(maker.model, maker.rollouts(seen, wave_N, maker.rollout, **others)))

    def maker(self, path: str) -> Pipeline:
        """The model that makes the structure for this one, with its own encoders; loaded once.

        Raises:
            UserError: it is none, or makes other structure.
        """
        if path not in self._makers:
            device, compiled = self.model.device, self.model.compiled_step
            maker = Pipeline.from_run(
                found(path), str(device), self.precision, face_detector=self.face_detector, compiled=compiled
            )
            check_maker(self.model.config, maker.model.config, path)
            self._makers[path] = maker
        return self._makers[path]

    def rollouts(
        self,
        image_HWC: np.ndarray | None,
        wave_N: np.ndarray | None,
        rollout: RolloutConfig,
        *,
        num_frames: int,
        seed: int,
        cropped: bool = False,
        keep_level: bool = False,
        drive: Drive | None = None,
    ) -> Iterator[Rollout]:
        """Yield latents chunk by chunk, not decoded; the arguments are those of :meth:`stream`."""
        latents = latent_length(num_frames)
        check_levels(self.model.config, rollout, latents)
        text = None if self.prompt is None else self.prompt.features_LD[None]
        check_guidance(self.model.config, rollout, self.trained)
        text_input(self.model.config, text)
        warn_of_latency(self.model.config, rollout, self.trained)
        heard = np.zeros(0, np.float32) if wave_N is None else wave_N
        if self.audio_encoder is not None and not keep_level:
            heard = levelled(heard, self.model.config.speech_level)
        return stream_latents(
            self.model,
            audio_pieces(self.audio_encoder, heard, num_frames, pool_of(self.model.config)),
            *self.encoded(image_HWC, cropped),
            text,
            config=rollout,
            seed=seed,
            drive=drive,
        )

    def encoded(self, image_HWC: np.ndarray | None, cropped: bool = False) -> EncodedPortrait:
        """Return a portrait as the model reads it.

        Raises:
            UserError: the model needs a portrait and there is none, or the other way round.
        """
        if self.vae is None or self.reference_encoder is None:
            if image_HWC is not None:
                raise UserError("a portrait was given, but the model makes structure alone; leave it out")
            return EncodedPortrait(None, None)
        if image_HWC is None:
            raise UserError("the model makes video, and needs a portrait")
        image = torch.from_numpy(self.portrait(image_HWC, cropped=cropped)).permute(2, 0, 1)[None].float() / 255
        latent = self.vae.encode_image(image)
        tokens = self.reference_encoder.encode(image, latent) if self.model.config.reads_reference else None
        return EncodedPortrait(latent, tokens)

    def _decode(self, rollouts: Iterator[Rollout]) -> Generator[GeneratedClip, None, None]:
        decoder = ClipDecoder(self.model, self.vae)
        with self.ahead(rollouts) as chunks:
            for chunk in chunks:
                yield from decoder.clips(chunk)

    @contextlib.contextmanager
    def ahead(self, chunks: Iterator[T]) -> Iterator[Iterator[T]]:
        """Give the chunks; with :attr:`beside`, the next is denoised while the caller has one, until the block ends."""
        if not self.beside:
            yield chunks
            return
        with contextlib.closing(one_ahead(chunks)) as made:
            yield made


def pool_of(config: DualForceConfig) -> AudioPool:
    """Return how a model pools audio features."""
    assert config.audio_pool is not None
    return config.audio_pool


def check_encoders(config: DualForceConfig, audio: AudioEncoder | None, reference: ReferenceEncoder | None) -> None:
    """Refuse encoders whose features are not those that a model was trained on.

    Raises:
        UserError: another width, or other weights under the same name.
    """
    for role, encoder, wanted in (("audio", audio, config.audio_dim), ("reference", reference, config.reference_dim)):
        if encoder is None:
            continue
        width = pooled_width(encoder.dim, pool_of(config)) if role == "audio" else encoder.dim
        if wanted and width != wanted:
            raise UserError(f"the {role} encoder {encoder.id!r} gives {width} features, but the model takes {wanted}")
        check_weights(config, role, encoder)


def check_weights(
    config: DualForceConfig, role: str, encoder: AudioEncoder | ReferenceEncoder | TextEncoder | VideoVAE
) -> None:
    """Refuse an encoder that bears the name of the one that a model was trained with and is another.

    Raises:
        UserError: their hashes differ.
    """
    known = config.encoder_hash(role)
    if known is not None and known != encoder.sha256:
        raise UserError(
            f"the {role} encoder {encoder.id!r} has other weights (sha256 {encoder.sha256[:12]}) than the one that the "
            f"model was trained with ({known[:12]}); give that one"
        )


def _choose_prompt(words: str | None, stored: Path | None, config: DualForceConfig) -> Prompt | None:
    """Return the prompt given, encoded on the processor (the encoder is larger than the model), else the stored one."""
    if words is None:
        return None if stored is None or not config.text_dim else read_prompt(stored)
    if not config.text_dim:
        raise UserError("a prompt was given, but the model reads no text (text_dim=0); leave it out")
    encoder = load_text_encoder(config.text_encoder)
    check_weights(config, "text", encoder)
    return encode_prompt(words, encoder, config.text_dim)


def encode_prompt(words: str, encoder: TextEncoder, text_dim: int) -> Prompt:
    """Encode a prompt for a model that reads features of width ``text_dim``, in half precision as datasets store it.

    Raises:
        UserError: the encoder's features are of another width.
    """
    if encoder.dim != text_dim:
        raise UserError(f"the text encoder {encoder.id!r} gives {encoder.dim} features, but the model takes {text_dim}")
    return Prompt(words, prompt_rows(encoder.encode([words])[0]).half())
