"""The DualForce model: a video and a structure tower, denoised together.

Shape legend: B batch, T latent frames, L latent frames of audio beyond them, S = 4 slots, C latent channels,
h and w latent height and width, N video tokens per frame, V structure vector, D and E tower widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from df_models.attention.backends import AttentionBackend
from df_models.attention.masks import BlockMasks, FrameLayout
from df_models.errors import UserError
from df_models.model.audio import AudioWindowEmbedding, AudioWindows, HeardAudio
from df_models.model.block import Context
from df_models.model.cache import Chunk, Held, KVCache, Ring, ring_shapes
from df_models.model.config import DualForceConfig
from df_models.model.fusion import FusionLayer
from df_models.model.graphs import StepGraphs
from df_models.model.inputs import (
    History,
    Inputs,
    aligned_frames,
    behind_history,
    check_audio,
    check_future,
    check_reference,
    checked_inputs,
    reference_frames,
    with_reference,
)
from df_models.model.joined import JoinedLayers, join
from df_models.model.layers import init_linear
from df_models.model.plan import ChunkPlan, ChunkView, Geometry, Pass, chunk_pass, clip_pass, plan_chunk
from df_models.model.presets import preset_config
from df_models.model.pretrained import Pretrained, called_like
from df_models.model.reference import ReferenceResampler
from df_models.model.statistics import StructureStatistics
from df_models.model.structure_dit import StructureDiT
from df_models.model.together import Ready, StepCall
from df_models.model.tower import Noise, NoiseEmbedding, Tower
from df_models.model.video_dit import VideoDiT
from df_models.time import SLOTS


class Velocity(NamedTuple):
    """Predicted velocity, noise minus clean: video ``[B, T, C, h, w]``, structure ``[B, T, 4, V]``.

    A stream that the model lacks has width 0: ``[B, T, 0, 0, 0]`` or ``[B, T, 4, 0]``.
    """

    video: Tensor
    structure: Tensor

    def like(self, video: Tensor | None, structure: Tensor | None) -> Velocity:
        """Return the velocities in the dtypes of the streams that they are of."""
        pairs = zip(self, (video, structure))
        return Velocity(*(velocity if stream is None else velocity.to(stream.dtype) for velocity, stream in pairs))


class DualForce(StructureStatistics, Pretrained):
    """Video and structure towers with bridge, audio, reference and text conditioning; or one of the towers.

    Of a stream that the model lacks (``streams`` of its configuration), and of audio in a model with ``audio_dim`` 0,
    methods take None, or tensors of width 0, and return such tensors.

    Attributes:
        config: the frozen configuration.
        video, structure: the towers, :class:`VideoDiT` and :class:`StructureDiT`; None where there is none.
        fusion: one :class:`FusionLayer` for each of the first ``fusion_depth`` layers, if there is an exchange.
        gradient_checkpointing: recompute every n-th layer in the backward pass instead of keeping its activations; 0
            (or False) none, 1 (or True) each.
        attention_backend: ``auto``, ``sdpa`` or ``flex`` (:mod:`df_models.attention.backends`).
    """

    model_type = "dualforce"
    config_type = DualForceConfig
    config: DualForceConfig

    def __init__(self, config: DualForceConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing: int = 0
        self.attention_backend: AttentionBackend = "auto"
        self._block_masks = BlockMasks()
        self._graphs: StepGraphs | None = None
        self._joins_products = False
        self.video = VideoDiT(config.video) if config.has_video else None
        self.structure = StructureDiT(config.structure) if config.has_structure else None
        self.fusion = nn.ModuleList(FusionLayer(config) for _ in range(config.fusion_layers))
        self.audio: AudioWindowEmbedding | None = None
        if config.hears:
            window = config.audio_past + SLOTS + config.audio_future
            self.audio = AudioWindowEmbedding(config.audio_dim, window, config.audio_width, config.eps)
        self.reference: ReferenceResampler | None = None
        if config.reads_reference:
            self.reference = ReferenceResampler(
                config.reference_dim, config.reference_width, config.reference_tokens, config.dim, config.eps
            )
        self.flame: nn.Sequential | None = None
        if config.reads_flame:
            hidden = config.flame_width
            self.flame = nn.Sequential(
                nn.Linear(config.structure_dim, hidden), nn.SiLU(), nn.Linear(hidden, config.flame_dim)
            )
            init_linear(self.flame)
        self.add_statistics(config.stream_entries)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> DualForce:
        """Build a freshly initialised model from a preset, with some settings of its configuration replaced.

        Raises:
            UserError: the preset or a setting is unknown, or the settings do not fit together.
        """
        return cls(preset_config(name, **overrides))

    def forward(
        self,
        video: Tensor | None,
        structure: Tensor | None,
        audio: Tensor | None,
        sigma_video: Tensor | None,
        sigma_structure: Tensor | None,
        reference_latent: Tensor | None = None,
        reference_tokens: Tensor | None = None,
        text: Tensor | None = None,
        *,
        reference_frame: Tensor | None = None,
        history: History | None = None,
        chunk: int = 1,
        structure_known: Tensor | None = None,
        audio_future: Tensor | int | None = None,
    ) -> Velocity:
        """Predict the velocity of every latent frame of both streams, each frame from itself and its past.

        Args:
            video: noisy latents ``[B, T, C, h, w]``, normalised.
            structure: noisy structure ``[B, T, 4, V]``, normalised.
            audio: features of the 25 Hz slots ``[B, T + L, 4, audio_dim]``; L >= 0 latent frames may follow the clip.
            sigma_video, sigma_structure: noise level of each latent frame ``[B, T]`` in [0, 1]; float32.
            reference_latent: one image encoded alone ``[B, C, h, w]``, shown to every frame; video needs it.
            reference_tokens: image features ``[B, L, reference_dim]``; None leaves them out.
            text: ``[B, L, text_dim]``, L <= 512, zero rows past its length: it is read as 512 rows, as Wan reads it;
                None leaves it out.
            reference_frame: ``[B]`` long, the latent frame that the reference image is aligned with, -1 for none.
            history: teacher forcing: every noisy frame sees itself and, of the past, this history only.
            chunk: with a history, latent frames that are denoised together, as by :meth:`step`: every noisy frame sees
                those of its chunk up to itself, and the history before the chunk.
            structure_known: bool ``[B, T, 4, V]``, entries of ``structure`` (and of the history's) that are given clean
                whatever their frame's level; their velocity means nothing. For models with ``structure_known``.
            audio_future: slots heard after a latent frame's own, 0 to the configuration's ``audio_future`` (the
                default): of each sample, ``[B]`` long, or of all. Later ones count as after the end of the audio.

        Returns:
            Velocities in the dtypes of ``video`` and ``structure``.

        Raises:
            UserError: a shape does not fit the configuration or the other inputs.
        """
        inputs = checked_inputs(self.config, video, structure, audio, sigma_video, sigma_structure)
        self._check_known(structure_known)
        batch, frames = inputs.structure.shape[:2]
        layout = FrameLayout.clip(frames)
        if chunk < 1 or (history is None and chunk != 1):
            raise UserError(f"chunk must be at least 1, and 1 without a history, not {chunk}")
        if history is not None:
            layout = FrameLayout.teacher_forcing(frames, chunk)
            inputs = behind_history(history, inputs)
            structure_known = None if structure_known is None else torch.cat([structure_known] * 2, dim=1)
        if self.video is not None:
            if reference_latent is None:
                raise UserError("the model needs reference_latent, but there is none")
            check_reference(reference_latent, batch, *inputs.video.shape[2:])
            aligned = reference_frames(reference_frame, batch, inputs.video.device)
            shown = with_reference(inputs.video, reference_latent, aligned_frames(layout.frames, aligned))
            inputs = inputs._replace(video=shown)
        video_context, structure_context = self._contexts(reference_tokens, text)
        geometry = self._geometry(inputs.video)
        check_future(self.config, audio_future, batch)
        windows = geometry.audio(layout.frames, 0, SLOTS * inputs.audio.shape[1], audio_future)
        heard = self._hear(inputs.audio.flatten(1, 2), windows)
        plan = clip_pass(geometry, layout, video_context, structure_context, heard, self.attention_backend)
        return self._run(inputs, plan, last=frames, known=structure_known).like(video, structure)

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
            height, width: of the latent; without video they mean nothing.
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
        rows, columns = self._grid(height, width)
        with torch.inference_mode(False):  # so that steps outside of inference mode may write into them as well
            rings = {
                name: Ring(shape, batch_size, sinks + window - 1, device, dtype)
                for name, shape in ring_shapes(config, rows * columns).items()
            }
            audio_past = torch.zeros(batch_size, config.audio_past, config.audio_dim, device=device, dtype=dtype)
        channels = config.stream_channels
        if reference_latent is None:
            reference_latent = torch.zeros(batch_size, channels, height, width, device=device)
        if self.video is not None:
            check_reference(reference_latent, batch_size, channels, height, width)
        with torch.no_grad():
            contexts = self._contexts(reference_tokens, text)
            video_context = [] if self.video is None else self.video.project_context(contexts[0])
            structure_context = [] if self.structure is None else self.structure.project_context(contexts[1])
        return KVCache(
            window=window,
            sinks=sinks,
            video=rings.get("video"),
            structure=rings.get("structure"),
            bridge_to_video=rings.get("bridge_to_video"),
            bridge_to_structure=rings.get("bridge_to_structure"),
            audio_past_BAF=audio_past,
            video_context=video_context,
            structure_context=structure_context,
            reference_latent=reference_latent.to(device),
            reference_frame=reference_frames(reference_frame, batch_size, device),
        )

    @torch.no_grad()
    def step(
        self,
        video: Tensor | None,
        structure: Tensor | None,
        audio: Tensor | None,
        sigma_video: Tensor | None,
        sigma_structure: Tensor | None,
        cache: KVCache,
        *,
        frame: int,
        write: bool,
        structure_known: Tensor | None = None,
        audio_future: Tensor | int | None = None,
        heard: HeardAudio | None = None,
        noise: Noise | None = None,
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
            heard: what :meth:`hear` returned for this chunk and this audio; None: it is computed anew.
            noise: what :meth:`embed_noise` returned for these noise levels; None: it is computed anew.

        Raises:
            UserError: a shape does not fit, the chunk exceeds the window, or ``frame`` is not the next one.
        """
        streams = video, structure, audio, sigma_video, sigma_structure
        call = StepCall(*streams, cache, frame, write, structure_known, audio_future, heard, noise)
        return self._run_ready(self._ready(call))

    @torch.no_grad()
    def hear(
        self,
        audio: Tensor | None,
        cache: KVCache,
        *,
        frame: int,
        count: int,
        audio_future: Tensor | int | None = None,
    ) -> HeardAudio | None:
        """Return what a chunk hears, with every layer's keys and values of it, for all :meth:`step` calls of the chunk.

        They are the same at every denoising step; without this each step makes them anew. None if the model has no
        audio.

        Args:
            audio, cache, frame, audio_future: as in :meth:`step`.
            count: latent frames of the chunk.

        Raises:
            UserError: ``frame`` is not the next one, or the audio does not fit.
        """
        if self.audio is None or audio is None:
            return None
        check_audio(self.config, audio, len(cache.reference_latent), count)
        check_future(self.config, audio_future, len(audio))
        heard = self._hear_chunk(audio, cache, cache.chunk(frame, count), audio_future)
        layers = [layer for layer in self.fusion if isinstance(layer, FusionLayer)]
        return replace(heard, keys=tuple(layer.hear(heard) for layer in layers))

    @torch.no_grad()
    def embed_noise(self, sigma_video: Tensor | None, sigma_structure: Tensor | None) -> Noise:
        """Return what the layers read of noise levels ``[B, C]``, for all :meth:`step` calls at these levels.

        Every chunk of a generation goes through the same few; without this each step embeds them anew.
        """
        return self._embed_noise(sigma_video, sigma_structure)

    def _embed_noise(self, sigma_video: Tensor | None, sigma_structure: Tensor | None) -> Noise:
        pairs = ((self.video, sigma_video), (self.structure, sigma_structure))
        return Noise(*(None if tower is None or sigma is None else tower.embed_noise(sigma) for tower, sigma in pairs))

    def join_products(self) -> None:
        """Make in one product, in :meth:`step`, what layers read of the same input: queries, keys and values.

        Their parameters are laid together in memory, and stay what they are: the same objects with the same names and
        values, that may be changed, moved or cast; before every chunk they are laid together again where that is
        needed. It is for generating: hooks on those layers are not called.
        """
        self._joins_products = True
        self._joined()

    def _joined(self) -> JoinedLayers | None:
        """Return the parameters that lie together, for the next chunk."""
        if not self._joins_products:
            return None
        exchanges = [layer for layer in self.fusion if isinstance(layer, FusionLayer)]
        return JoinedLayers(
            [] if self.video is None else [join(readers) for readers in self.video.readers()],
            [] if self.structure is None else [join(readers) for readers in self.structure.readers()],
            [join(layer.video_readers()) for layer in exchanges],
            [join(layer.structure_readers()) for layer in exchanges],
        )

    def compile_step(self, **options: Any) -> None:
        """Compile what the layers of :meth:`step` compute as one graph, with options of ``torch.compile``.

        There is a graph with and one without ``write`` for each size of the chunk (batch, frames, height, width), each
        size of a batch of several caches, and for ``structure_known`` and ``noise`` given or not; nothing else of a
        generation compiles anew. Compiling takes long, in the first calls (`benchmarks/live.py`). Products are joined
        (:meth:`join_products`). Weights may be changed, moved and cast afterwards, but layers must not be replaced: the
        graphs would not see it.
        """
        self.join_products()
        self._graphs = StepGraphs(DualForce._chunk, options)

    @property
    def compiled_step(self) -> bool:
        """Whether :meth:`compile_step` was called."""
        return self._graphs is not None

    @torch.no_grad()
    def _ready(self, call: StepCall) -> Ready:
        """Check the arguments of a step, plan its chunk, and hear, unless that is done."""
        config, frame = self.config, call.frame
        inputs = checked_inputs(config, *call[:5])
        batch, chunk = inputs.structure.shape[:2]
        if self.video is not None:
            check_reference(call.cache.reference_latent, batch, *inputs.video.shape[2:])
        check_future(config, call.audio_future, batch)
        self._check_known(call.structure_known)
        plan = self._plan(inputs, call.cache, (frame, frame + chunk))
        heard = call.heard
        if heard is None:
            heard = self._hear_chunk(inputs.audio, call.cache, plan.chunk, call.audio_future)
        return Ready(call, inputs._replace(audio=inputs.audio[:, :chunk]), plan, heard)

    @torch.no_grad()
    def _run_ready(self, ready: Ready) -> Velocity:
        """Run a step by itself, and store what it writes."""
        call, inputs, plan, heard = ready
        velocity, held = self._run_chunk(inputs, heard, plan.view, call.structure_known, call.write, call.noise)
        if held is not None:
            ready.store(held)
        return velocity.like(*call[:2])

    def _plan(self, inputs: Inputs, cache: KVCache, span: tuple[int, int]) -> ChunkPlan:
        """Plan a chunk, or return the plan made for it at an earlier denoising step."""
        key = (span, inputs.video.shape[-2:], self.compiled_step)
        if cache.plan is None or cache.plan[0] != key:
            cache.plan = None  # what is made now overwrites what an earlier plan reads
            plan = plan_chunk(self._geometry(inputs.video), cache, span, masked=self.compiled_step)
            cache.plan = (key, plan._replace(view=plan.view._replace(joined=self._joined())))
        return cache.plan[1]

    def _hear_chunk(self, audio: Tensor, cache: KVCache, chunk: Chunk, audio_future: Tensor | int | None) -> HeardAudio:
        """Return what a chunk's frames hear: the slots before them from the cache, their own and those after them."""
        past = cache.audio_past_BAF
        slots = torch.cat([past, audio.flatten(1, 2).to(past.dtype)], dim=1)
        first_slot = SLOTS * chunk.frames[0] - past.shape[1]
        windows = self._geometry(cache.reference_latent).audio(chunk.frames, first_slot, slots.shape[1], audio_future)
        return self._hear(slots, windows)

    def _run_chunk(
        self,
        inputs: Inputs,
        heard: HeardAudio,
        view: ChunkView,
        known: Tensor | None,
        write: bool,
        noise: Noise | None,
        sizes: tuple[object, ...] = (),
    ) -> tuple[Velocity, Held | None]:
        """Run a chunk, compiled where the step is; ``sizes``: of what a batch of several caches reads."""
        run = DualForce._chunk
        if self._graphs is not None:
            run = self._graphs.of(inputs, write, known, noise, (self.dtype, self.device, *sizes))
        return run(self, inputs, heard, view, known, write, noise)

    def _chunk(
        self,
        inputs: Inputs,
        heard: HeardAudio,
        view: ChunkView,
        known: Tensor | None,
        write: bool,
        noise: Noise | None = None,
    ) -> tuple[Velocity, Held | None]:
        """Run a chunk, and return what it leaves in the cache; it is a function of tensors alone and compiles whole."""
        if self.video is not None:
            inputs = inputs._replace(video=with_reference(inputs.video, view.reference_latent, view.aligned_BC))
        held = Held([], [], [], []) if write else None
        layers = chunk_pass(view, heard, held)
        return self._run(inputs, layers, last=inputs.structure.shape[1], known=known, noise=noise), held

    def _run(
        self, inputs: Inputs, plan: Pass, *, last: int, known: Tensor | None = None, noise: Noise | None = None
    ) -> Velocity:
        """Embed, run all layers, and predict for the ``last`` frames; ``inputs.video`` has the reference with it."""
        video, structure = self.video, self.structure
        noise_v, noise_s = noise or self._embed_noise(inputs.sigma_video, inputs.sigma_structure)
        x_video = None if video is None else video.embed(inputs.video)
        x_structure = None if structure is None else structure.embed(inputs.structure, known)
        for layer in range(max(len(tower.blocks) for tower in self.towers)):
            x_video, x_structure = self._layer(layer, x_video, x_structure, noise_v, noise_s, plan)
        out_video, out_structure = inputs.video[:, -last:], inputs.structure[:, -last:]  # of width 0, if they stay
        if video is not None and x_video is not None and noise_v is not None:
            out_video = video.head(x_video[:, -last:], noise_v.embedding_BTD[:, -last:])
            out_video = video.unembed(out_video, *inputs.video.shape[-2:])
        if structure is not None and x_structure is not None and noise_s is not None:
            out_structure = structure.head(x_structure[:, -last:], noise_s.embedding_BTD[:, -last:])
        return Velocity(out_video, out_structure)

    def _layer(
        self,
        layer: int,
        video: Tensor | None,
        structure: Tensor | None,
        noise_v: NoiseEmbedding | None,
        noise_s: NoiseEmbedding | None,
        plan: Pass,
    ) -> tuple[Tensor | None, Tensor | None]:
        if layer < len(self.fusion):
            video, structure = self._maybe_checkpoint(layer, self.fusion[layer], video, structure, plan.exchange(layer))
        if self.video is not None and noise_v is not None and layer < len(self.video.blocks):
            reads = plan.attend_video(layer), plan.context_video(layer), plan.joined_video(layer)
            block = self.video.blocks[layer]
            video = self._maybe_checkpoint(layer, block, video, noise_v.projection_BT6D, *reads)
        if self.structure is not None and noise_s is not None and layer < len(self.structure.blocks):
            reads = plan.attend_structure(layer), plan.context_structure(layer), plan.joined_structure(layer)
            block = self.structure.blocks[layer]
            structure = self._maybe_checkpoint(layer, block, structure, noise_s.projection_BT6D, *reads)
        return video, structure

    @property
    def towers(self) -> list[Tower]:
        """The towers that there are, video first."""
        return [tower for tower in (self.video, self.structure) if tower is not None]

    def layers(self) -> Iterator[nn.Module]:
        """Every block and fusion layer, in the order in which a pass runs them."""
        stacks = [self.fusion, *(tower.blocks for tower in self.towers)]
        for layer in range(max(map(len, stacks))):
            yield from (stack[layer] for stack in stacks if layer < len(stack))

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

    def _check_known(self, known: Tensor | None) -> None:
        if known is not None and self.structure is None:
            raise UserError("structure_known was given, but this model has no structure; leave it out (None)")

    def _hear(self, audio_BAF: Tensor, windows: AudioWindows) -> HeardAudio:
        """Return what latent frames hear; without fusion layers nobody listens."""
        return HeardAudio(audio_BAF if self.audio is None else self.audio(audio_BAF, windows), windows)

    def _contexts(self, reference_tokens: Tensor | None, text: Tensor | None) -> tuple[Context, Context]:
        """Return the cross-attention contexts of the video and the structure tower."""
        reference = None
        if reference_tokens is not None:
            if self.reference is None:
                why = "reference_dim=0" if self.config.has_video else "no video"
                raise UserError(f"reference tokens were given, but this model has {why} and reads none")
            if reference_tokens.ndim != 3 or reference_tokens.shape[-1] != self.config.reference_dim:
                wanted = f"[batch, tokens, {self.config.reference_dim}]"
                raise UserError(f"reference_tokens must be {wanted}, not {list(reference_tokens.shape)}")
            reference = self.reference(reference_tokens)
        video_text = None if self.video is None else self.video.embed_text(text)
        read = self.structure is not None and (self.config.structure_text or self.video is None)
        structure_text = self.structure.embed_text(text) if self.structure is not None and read else None
        return Context(video_text, reference), Context(structure_text, None)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of video tokens, none without video."""
        return (0, 0) if self.video is None else self.video.grid(height, width)

    def _geometry(self, video: Tensor) -> Geometry:
        grid = self._grid(*video.shape[-2:])
        return Geometry(self.config, grid, video.device, self.towers[0].compute_dtype, self._block_masks)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.towers[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.towers[0].head.modulation.device

    def predict_flame(self, structure_clean: Tensor) -> Tensor:
        """Read FLAME ``[B, T, 4, flame_dim]`` from (predicted) clean, normalised structure ``[B, T, 4, V]``."""
        if self.flame is None:
            raise UserError("this model has no FLAME head; build it with structure and a flame_dim above 0")
        return self.flame(structure_clean.to(self.dtype)).to(structure_clean.dtype)
