"""One layer's exchange before the towers' blocks: the bridge between them, and the audio that both hear.

All parts read the states from before the exchange; each update goes through its own gate, which starts closed.

Shape legend: B batch, T latent frames, N video tokens and S = 4 structure tokens per frame, D and E their widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from df_models.model.audio import NO_KEYS, AudioAttention, HeardAudio, LayerKeys
from df_models.model.block import Attend
from df_models.model.bridge import BridgeAttention
from df_models.model.config import DualForceConfig
from df_models.model.joined import Joined, products
from df_models.model.layers import Gate, computed, plain_norm


@dataclass(frozen=True)
class Exchange:
    """What a fusion layer needs beside the two states.

    Attributes:
        to_video, to_structure: how the bridge's queries read the other stream (None: the direction is off).
        audio: what each latent frame hears; ``keys``: this layer's of it, if they were made before.
        joined: the parameters of :meth:`FusionLayer.video_readers` and :meth:`FusionLayer.structure_readers`, where
            they lie together.
    """

    to_video: Attend | None
    to_structure: Attend | None
    audio: HeardAudio
    keys: LayerKeys = NO_KEYS
    joined: tuple[Joined | None, Joined | None] = (None, None)


class FusionLayer(nn.Module):
    """Bridge and audio of one layer: what the model has of both."""

    def __init__(self, config: DualForceConfig) -> None:
        super().__init__()
        video, structure, eps = config.dim, config.structure_width, config.eps
        self.eps = eps
        bridge = (config.bridge_width, config.bridge_heads, eps)
        audio = (config.audio_width, config.audio_heads, eps)
        self.to_video: BridgeAttention | None = None
        self.to_structure: BridgeAttention | None = None
        self.audio_to_video: AudioAttention | None = None
        self.audio_to_structure: AudioAttention | None = None
        if config.bridge_to_video:
            self.to_video = BridgeAttention(video, structure, *bridge)
            self.gate_to_video = Gate(video, config.gate_gain)
        if config.bridge_to_structure:
            self.to_structure = BridgeAttention(structure, video, *bridge)
            self.gate_to_structure = Gate(structure, config.gate_gain)
        if config.hears and config.has_video:
            self.audio_to_video = AudioAttention(video, *audio, slots=False)
            self.gate_audio_to_video = Gate(video, config.gate_gain)
        if config.hears and config.has_structure:
            self.audio_to_structure = AudioAttention(structure, *audio, slots=True)
            self.gate_audio_to_structure = Gate(structure, config.gate_gain)

    def forward(
        self, video_BTND: Tensor | None, structure_BTSE: Tensor | None, exchange: Exchange
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return both updated states, in their dtype (float32 unless the model is float64); None stays None."""
        video = self._read(video_BTND, self.video_readers(), exchange.joined[0])
        structure = self._read(structure_BTSE, self.structure_readers(), exchange.joined[1])
        new_video, new_structure = video_BTND, structure_BTSE
        if self.audio_to_video is not None and video_BTND is not None:
            update = self.audio_to_video(video["hears"], exchange.audio, exchange.keys.video)
            new_video = self.gate_audio_to_video(video_BTND, update)
        if self.audio_to_structure is not None and structure_BTSE is not None:
            update = self.audio_to_structure(structure["hears"], exchange.audio, exchange.keys.structure)
            new_structure = self.gate_audio_to_structure(structure_BTSE, update)
        if self.to_video is not None:
            assert exchange.to_video is not None, "the pass was planned without structure -> video"
            update = self.to_video(video["q"], structure["k"], structure["v"], exchange.to_video)
            new_video = self.gate_to_video(new_video, update)
        if self.to_structure is not None:
            assert exchange.to_structure is not None, "the pass was planned without video -> structure"
            update = self.to_structure(structure["q"], video["k"], video["v"], exchange.to_structure)
            new_structure = self.gate_to_structure(new_structure, update)
        return new_video, new_structure

    def video_readers(self) -> dict[str, nn.Linear]:
        """The layers that read the video's state: for what it hears and asks the structure, and is asked by it."""
        return _readers(self.audio_to_video, self.to_video, self.to_structure)

    def structure_readers(self) -> dict[str, nn.Linear]:
        """The layers that read the structure's state, as :meth:`video_readers`."""
        return _readers(self.audio_to_structure, self.to_structure, self.to_video)

    def hear(self, audio: HeardAudio) -> LayerKeys:
        """Return this layer's keys and values of what is heard."""
        attentions = (self.audio_to_video, self.audio_to_structure)
        return LayerKeys(*(None if attention is None else attention.project(audio) for attention in attentions))

    def _read(self, state_D: Tensor | None, readers: dict[str, nn.Linear], joined: Joined | None) -> dict[str, Tensor]:
        """Return what a state's readers make of it: normalised, in the dtype that they all compute in."""
        if state_D is None or not readers:
            return {}
        hidden = computed(plain_norm(state_D, self.eps), next(iter(readers.values())))
        return products(hidden, readers, joined)


def _readers(
    hears: AudioAttention | None, asks: BridgeAttention | None, asked: BridgeAttention | None
) -> dict[str, nn.Linear]:
    heard = {} if hears is None else {"hears": hears.q}
    queries = {} if asks is None else {"q": asks.q}
    return heard | queries | ({} if asked is None else {"k": asked.k, "v": asked.v})
