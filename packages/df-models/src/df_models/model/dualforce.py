"""The DualForce model: a video and a structure tower, denoised together.

Shape legend: B batch, T latent frames, L latent frames of audio beyond them, S = 4 slots, C latent channels,
h and w latent height and width, N video tokens per frame, V structure vector, D and E tower widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from df_models.attention.backends import AttentionBackend
from df_models.attention.masks import BlockMasks, FrameLayout
from df_models.errors import UserError
from df_models.model.audio import AudioWindowEmbedding, HeardAudio
from df_models.model.block import Context
from df_models.model.cache import KVCache, Ring, RingShape, Writes
from df_models.model.config import DualForceConfig
from df_models.model.fusion import FusionLayer
from df_models.model.inputs import (
    History,
    check_future,
    check_history,
    check_reference,
    check_streams,
    reference_frames,
    with_reference,
)
from df_models.model.layers import init_linear
from df_models.model.plan import Geometry, Pass, chunk_pass, clip_pass, plan_chunk
from df_models.model.presets import preset_config
from df_models.model.pretrained import Pretrained, called_like
from df_models.model.reference import ReferenceResampler
from df_models.model.structure_dit import StructureDiT
from df_models.model.tower import NoiseEmbedding
from df_models.model.video_dit import VideoDiT
from df_models.time import SLOTS


class Velocity(NamedTuple):
    """Predicted velocity, noise minus clean: video ``[B, T, C, h, w]``, structure ``[B, T, 4, V]``."""

    video: Tensor
    structure: Tensor


class DualForce(Pretrained):
    """Video and structure towers with bridge, audio, reference and text conditioning.

    Attributes:
        config: the frozen configuration.
        video, structure: the towers, :class:`VideoDiT` and :class:`StructureDiT`.
        fusion: one :class:`FusionLayer` for each of the first ``fusion_depth`` layers.
        structure_mean, structure_std: float32 ``[V]`` statistics of raw structure vectors; they keep float32 when
            the model is cast, and travel in the checkpoint.
        gradient_checkpointing: recompute every n-th layer in the backward pass instead of keeping its activations; 0
            (or False) none, 1 (or True) each.
        attention_backend: ``auto``, ``sdpa`` or ``flex`` (:mod:`df_models.attention.backends`).
    """

    model_type = "dualforce"
    config_type = DualForceConfig
    config: DualForceConfig
    structure_mean: Tensor
    structure_std: Tensor

    def __init__(self, config: DualForceConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing: int = 0
        self.attention_backend: AttentionBackend = "auto"
        self._block_masks = BlockMasks()
        self.video = VideoDiT(config.video)
        self.structure = StructureDiT(config.structure)
        self.fusion = nn.ModuleList(FusionLayer(config) for _ in range(config.fusion_depth))
        self.audio: AudioWindowEmbedding | None = None
        if config.fusion_depth:
            window = config.audio_past + SLOTS + config.audio_future
            self.audio = AudioWindowEmbedding(config.audio_dim, window, config.audio_width, config.eps)
        self.reference: ReferenceResampler | None = None
        if config.reference_dim:
            self.reference = ReferenceResampler(
                config.reference_dim, config.reference_width, config.reference_tokens, config.dim, config.eps
            )
        self.flame: nn.Sequential | None = None
        if config.flame_dim:
            hidden = config.flame_width
            self.flame = nn.Sequential(
                nn.Linear(config.structure_dim, hidden), nn.SiLU(), nn.Linear(hidden, config.flame_dim)
            )
            init_linear(self.flame)
        self.register_buffer("structure_mean", torch.zeros(config.structure_dim))
        self.register_buffer("structure_std", torch.ones(config.structure_dim))

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> DualForce:
        """Build a freshly initialised model from a preset, with some settings of its configuration replaced.

        Raises:
            UserError: the preset or a setting is unknown, or the settings do not fit together.
        """
        return cls(preset_config(name, **overrides))

    def forward(
        self,
        video: Tensor,
        structure: Tensor,
        audio: Tensor,
        sigma_video: Tensor,
        sigma_structure: Tensor,
        reference_latent: Tensor,
        reference_tokens: Tensor | None = None,
        text: Tensor | None = None,
        *,
        reference_frame: Tensor | None = None,
        history: History | None = None,
        structure_known: Tensor | None = None,
        audio_future: Tensor | int | None = None,
    ) -> Velocity:
        """Predict the velocity of every latent frame of both streams, each frame from itself and its past.

        Args:
            video: noisy latents ``[B, T, C, h, w]``, normalised.
            structure: noisy structure ``[B, T, 4, V]``, normalised.
            audio: features of the 25 Hz slots ``[B, T + L, 4, audio_dim]``; L >= 0 latent frames may follow the clip.
            sigma_video, sigma_structure: noise level of each latent frame ``[B, T]`` in [0, 1]; float32.
            reference_latent: one image encoded alone ``[B, C, h, w]``, shown to every frame.
            reference_tokens: image features ``[B, L, reference_dim]``; None leaves them out.
            text: ``[B, L, text_dim]``, L <= 512, zero rows past its length: it is read as 512 rows, as Wan reads it;
                None leaves it out.
            reference_frame: ``[B]`` long, the latent frame that the reference image is aligned with, -1 for none.
            history: teacher forcing: every noisy frame sees itself and, of the past, this history only.
            structure_known: bool ``[B, T, 4, V]``, entries of ``structure`` (and of the history's) that are given clean
                whatever their frame's level; their velocity means nothing. For models with ``structure_known``.
            audio_future: slots heard after a latent frame's own, 0 to the configuration's ``audio_future`` (the
                default): of each sample, ``[B]`` long, or of all. Later ones count as after the end of the audio.

        Returns:
            Velocities in the dtypes of ``video`` and ``structure``.

        Raises:
            UserError: a shape does not fit the configuration or the other inputs.
        """
        frames = video.shape[1]
        check_streams(self.config, video, structure, audio, sigma_video, sigma_structure)
        dtypes = video.dtype, structure.dtype
        layout = FrameLayout.clip(frames)
        if history is not None:
            layout = FrameLayout.teacher_forcing(frames)
            check_history(history, History(video, structure, sigma_video, sigma_structure))
            pairs = zip(history, (video, structure, sigma_video, sigma_structure))
            video, structure, sigma_video, sigma_structure = (torch.cat(pair, dim=1) for pair in pairs)
            structure_known = None if structure_known is None else torch.cat([structure_known] * 2, dim=1)
        check_reference(reference_latent, video.shape[0], *video.shape[2:])
        aligned = reference_frames(reference_frame, video.shape[0], video.device)
        inputs = with_reference(video, layout.frames, reference_latent, aligned)
        video_context, structure_context = self._contexts(reference_tokens, text)
        geometry = self._geometry(video)
        check_future(self.config, audio_future, video.shape[0])
        heard = self._hear(geometry, audio.flatten(1, 2), layout.frames, first_slot=0, future=audio_future)
        plan = clip_pass(geometry, layout, video_context, structure_context, heard, self.attention_backend)
        velocity = self._run(inputs, structure, sigma_video, sigma_structure, plan, last=frames, known=structure_known)
        return Velocity(velocity.video.to(dtypes[0]), velocity.structure.to(dtypes[1]))

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def new_cache(
        self,
        batch_size: int,
        height: int,
        width: int,
        window: int,
        sinks: int,
        *,
        reference_latent: Tensor | None = None,
        reference_tokens: Tensor | None = None,
        text: Tensor | None = None,
        reference_frame: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> KVCache:
        """Allocate the cache of one generation.

        Args:
            batch_size: sequences generated together.
            height, width: of the latent.
            window: latent frames visible at most, the current chunk included, beside the sinks.
            sinks: first latent frames of the video that stay visible for ever.
            reference_latent, reference_tokens, text, reference_frame: conditioning, as in :meth:`forward`; without
                a reference latent its channels are zero.
            device, dtype: default to the model's.

        Raises:
            UserError: a size is out of range or an input does not fit.
        """
        config = self.config
        if window < 1 or sinks < 0 or batch_size < 1:
            raise UserError(
                f"a cache needs window >= 1, sinks >= 0 and batch_size >= 1, not {window}, {sinks} and {batch_size}"
            )
        device = torch.device(device) if device is not None else self.device
        dtype = dtype or self.dtype
        rows, columns = self.video.grid(height, width)
        tokens, places = rows * columns, sinks + window - 1

        def ring(layers: int, stream_tokens: int, stream_width: int, heads: int) -> Ring:
            shape = RingShape(layers, stream_tokens, heads, stream_width // heads)
            with torch.inference_mode(False):  # so that steps outside of inference mode may write into it as well
                return Ring(shape, batch_size, places, device, dtype)

        with torch.inference_mode(False):
            audio_past = torch.zeros(batch_size, config.audio_past, config.audio_dim, device=device, dtype=dtype)
        bridge = (config.bridge_width, config.bridge_heads)
        if reference_latent is None:
            reference_latent = torch.zeros(batch_size, config.latent_channels, height, width, device=device)
        check_reference(reference_latent, batch_size, config.latent_channels, height, width)
        with torch.no_grad():
            contexts = self._contexts(reference_tokens, text)
            video_context = self.video.project_context(contexts[0])
            structure_context = self.structure.project_context(contexts[1])
        to_video = config.causal_bridge and config.bridge_to_video
        to_structure = config.causal_bridge and config.bridge_to_structure
        return KVCache(
            window=window,
            sinks=sinks,
            video=ring(config.num_layers, tokens, config.dim, config.num_heads),
            structure=ring(config.structure_layers, SLOTS, config.structure_width, config.structure_heads),
            bridge_to_video=ring(config.fusion_depth, SLOTS, *bridge) if to_video else None,
            bridge_to_structure=ring(config.fusion_depth, tokens, *bridge) if to_structure else None,
            audio_past_BAF=audio_past,
            video_context=video_context,
            structure_context=structure_context,
            reference_latent=reference_latent.to(device),
            reference_frame=reference_frames(reference_frame, batch_size, device),
        )

    @torch.no_grad()
    def step(
        self,
        video: Tensor,
        structure: Tensor,
        audio: Tensor,
        sigma_video: Tensor,
        sigma_structure: Tensor,
        cache: KVCache,
        *,
        frame: int,
        write: bool,
        structure_known: Tensor | None = None,
        audio_future: Tensor | int | None = None,
    ) -> Velocity:
        """Predict the velocity of one chunk of ``C`` latent frames from itself and the cache.

        Args:
            video: ``[B, C, channels, h, w]``; structure: ``[B, C, 4, V]``; sigmas: ``[B, C]``.
            audio: ``[B, C + L, 4, audio_dim]``: the chunk's own slots, then L >= 0 latent frames of lookahead, of
                which ``audio_future`` slots are heard; what is not given counts as after the end of the audio.
            cache: from :meth:`new_cache`; ``frame`` must be the next frame, ``cache.length``.
            frame: absolute latent index of the chunk's first frame.
            write: store the chunk's keys, values and audio, computed in this very call. Give clean frames, at
                sigma 0 or a small context noise; without it, or if the call fails, nothing in the cache changes.
            structure_known, audio_future: as in :meth:`forward`, ``[B, C, 4, V]`` and ``[B]`` or a number.

        Raises:
            UserError: a shape does not fit, the chunk exceeds the window, or ``frame`` is not the next one.
        """
        check_streams(self.config, video, structure, audio, sigma_video, sigma_structure)
        check_reference(cache.reference_latent, video.shape[0], *video.shape[2:])
        chunk = video.shape[1]
        geometry = self._geometry(video)
        plan = plan_chunk(geometry, cache, frame, chunk)
        slots = audio.flatten(1, 2)
        past = cache.audio_past_BAF
        known = torch.cat([past, slots.to(past.dtype)], dim=1)
        check_future(self.config, audio_future, video.shape[0])
        first_slot = SLOTS * frame - past.shape[1]
        heard = self._hear(geometry, known, plan.chunk.frames, first_slot=first_slot, future=audio_future)
        inputs = with_reference(video, plan.chunk.frames, cache.reference_latent, cache.reference_frame)
        writes = Writes(plan.chunk) if write else None
        layers = chunk_pass(geometry, cache, plan, heard, writes)
        velocity = self._run(inputs, structure, sigma_video, sigma_structure, layers, last=chunk, known=structure_known)
        if writes is not None:
            cache.store(writes, chunk, slots[:, : SLOTS * chunk])
        return Velocity(velocity.video.to(video.dtype), velocity.structure.to(structure.dtype))

    def _run(
        self,
        video: Tensor,
        structure: Tensor,
        sigma_video: Tensor,
        sigma_structure: Tensor,
        plan: Pass,
        *,
        last: int,
        known: Tensor | None = None,
    ) -> Velocity:
        """Embed, run all layers, and predict for the ``last`` frames."""
        height, width = video.shape[-2:]
        noise_v, noise_s = self.video.embed_noise(sigma_video), self.structure.embed_noise(sigma_structure)
        x_video, x_structure = self.video.embed(video), self.structure.embed(structure, known)
        for layer in range(max(len(self.video.blocks), len(self.structure.blocks))):
            x_video, x_structure = self._layer(layer, x_video, x_structure, noise_v, noise_s, plan)
        out_video = self.video.head(x_video[:, -last:], noise_v.embedding_BTD[:, -last:])
        out_structure = self.structure.head(x_structure[:, -last:], noise_s.embedding_BTD[:, -last:])
        return Velocity(self.video.unembed(out_video, height, width), out_structure)

    def _layer(
        self, layer: int, video: Tensor, structure: Tensor, noise_v: NoiseEmbedding, noise_s: NoiseEmbedding, plan: Pass
    ) -> tuple[Tensor, Tensor]:
        if layer < len(self.fusion):
            video, structure = self._maybe_checkpoint(layer, self.fusion[layer], video, structure, plan.exchange(layer))
        if layer < len(self.video.blocks):
            context = plan.context_video(layer)
            attend = plan.attend_video(layer)
            block = self.video.blocks[layer]
            video = self._maybe_checkpoint(layer, block, video, noise_v.projection_BT6D, attend, context)
        if layer < len(self.structure.blocks):
            context = plan.context_structure(layer)
            attend = plan.attend_structure(layer)
            block = self.structure.blocks[layer]
            structure = self._maybe_checkpoint(layer, block, structure, noise_s.projection_BT6D, attend, context)
        return video, structure

    def layers(self) -> Iterator[nn.Module]:
        """Every block and fusion layer, in the order in which a pass runs them."""
        for layer in range(max(len(self.video.blocks), len(self.structure.blocks))):
            for parts in (self.fusion, self.video.blocks, self.structure.blocks):
                if layer < len(parts):
                    yield parts[layer]

    def compile_layers(self, **options: Any) -> None:
        """Compile every block and fusion layer in place, with options of ``torch.compile``.

        All layers of a kind share one compiled graph, so compiling does not take longer for a deeper model. What is
        compiled is a layer's ``forward``, so that hooks around it (of FSDP2) are not.
        """
        for layer in self.layers():
            layer.forward = torch.compile(layer.forward, **options)

    def _maybe_checkpoint(self, layer: int, module: Callable[..., Any], *args: Any) -> Any:
        every = int(self.gradient_checkpointing)
        if every and layer % every == 0 and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False)
        return module(*args)

    def _hear(
        self,
        geometry: Geometry,
        audio_BAF: Tensor,
        frames: tuple[int, ...],
        *,
        first_slot: int,
        future: Tensor | int | None = None,
    ) -> HeardAudio:
        """Return what latent ``frames`` hear of slots ``first_slot ..``; without fusion layers nobody listens."""
        windows = geometry.audio(frames, first_slot, audio_BAF.shape[1], future)
        return HeardAudio(audio_BAF if self.audio is None else self.audio(audio_BAF, windows), windows)

    def _contexts(self, reference_tokens: Tensor | None, text: Tensor | None) -> tuple[Context, Context]:
        """Return the cross-attention contexts of the video and the structure tower."""
        reference = None
        if reference_tokens is not None:
            if self.reference is None:
                raise UserError("reference tokens were given, but this model has reference_dim=0 and reads none")
            if reference_tokens.ndim != 3 or reference_tokens.shape[-1] != self.config.reference_dim:
                wanted = f"[batch, tokens, {self.config.reference_dim}]"
                raise UserError(f"reference_tokens must be {wanted}, not {list(reference_tokens.shape)}")
            reference = self.reference(reference_tokens)
        structure_text = self.structure.embed_text(text) if self.config.structure_text else None
        return Context(self.video.embed_text(text), reference), Context(structure_text, None)

    def _geometry(self, video: Tensor) -> Geometry:
        grid = self.video.grid(*video.shape[-2:])
        return Geometry(self.config, grid, video.device, self.video.compute_dtype, self._block_masks)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.video.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.structure_mean.device

    def predict_flame(self, structure_clean: Tensor) -> Tensor:
        """Read FLAME ``[B, T, 4, flame_dim]`` from (predicted) clean, normalised structure ``[B, T, 4, V]``."""
        if self.flame is None:
            raise UserError("this model has no FLAME head; build it with a flame_dim above 0")
        return self.flame(structure_clean.to(self.dtype)).to(structure_clean.dtype)

    @property
    def has_structure_statistics(self) -> bool:
        """Whether :meth:`set_structure_statistics` gave the model statistics; before, they change nothing."""
        return bool(self.structure_mean.any()) or not bool((self.structure_std == 1).all())

    def set_structure_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation ``[V]`` of raw structure vectors.

        Raises:
            UserError: the shapes do not fit, or a standard deviation is not positive.
        """
        wanted = (self.config.structure_dim,)
        if tuple(mean.shape) != wanted or tuple(std.shape) != wanted:
            raise UserError(
                f"structure statistics must be {list(wanted)}, not {list(mean.shape)} and {list(std.shape)}"
            )
        if not bool((std > 0).all()) or not bool(torch.isfinite(mean).all()):
            raise UserError("structure statistics must be finite, with standard deviations above 0")
        self.structure_mean.copy_(mean)
        self.structure_std.copy_(std)

    def normalize_structure(self, structure: Tensor) -> Tensor:
        """Turn raw structure vectors ``[..., V]`` into the model's units."""
        return ((structure.float() - self.structure_mean) / self.structure_std).to(structure.dtype)

    def denormalize_structure(self, structure: Tensor) -> Tensor:
        """Turn the model's structure ``[..., V]`` back into raw vectors."""
        return (structure.float() * self.structure_std + self.structure_mean).to(structure.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DualForce:
        """Move or cast the model; the structure statistics move along but keep float32."""
        mean, std = self.structure_mean, self.structure_std
        super()._apply(fn, recurse)
        if self.structure_mean.dtype != torch.float32:
            self.structure_mean = mean.to(self.structure_mean.device)
            self.structure_std = std.to(self.structure_std.device)
        return self
