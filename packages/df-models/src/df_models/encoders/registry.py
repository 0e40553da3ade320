"""The one list of frozen encoders: what each is called, where its code is, what is known of it without its weights.

To add an encoder is to add its :class:`EncoderEntry` to :data:`ENTRIES`, or to :func:`register` it from a package or
script of one's own (docs/how-to/encoder.md); configs, error messages, manifests, latency and the tests that load every
encoder follow from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from df_models.encoders.pretrained import hub_origin
from df_models.encoders.weights import Origin, split_spec
from df_models.errors import UserError, nearest
from df_models.structure import LIVEPORTRAIT_70, MEDIAPIPE_70, SYNTHETIC_70, VectorLayout
from df_models.time import AUDIO_PADDING, FPS, SAMPLE_RATE

Role = Literal["video", "audio", "reference", "text", "structure", "flame", "lip sync"]
AudioPool = Literal["mean", "concat"]
"""How two features of a pixel frame become one slot (:func:`df_models.time.pool_audio`)."""
CALLED: dict[Role, str] = {
    "video": "video VAE",
    "audio": "audio encoder",
    "reference": "reference encoder",
    "text": "text encoder",
    "structure": "structure encoder",
    "flame": "FLAME encoder",
    "lip sync": "lip sync network",
}
"""What messages call the encoder of each role."""

WINDOW_MARK = "@"
_WINDOW = re.compile(r"(?P<length>\d+(\.\d+)?)\+(?P<before>\d+(\.\d+)?)(-(?P<after>\d+(\.\d+)?))?")
_REACH_S = AUDIO_PADDING / 2 / SAMPLE_RATE
"""A feature's own frame ends this much after its pixel frame (:data:`df_models.time.AUDIO_PADDING`)."""


class AudioWindow(NamedTuple):
    """How an encoder that hears everything it is given is shown a recording: piece by piece, on a fixed grid.

    The recording is cut into pieces of ``length`` pixel frames from its start; each is encoded together with ``before``
    and ``after`` pixel frames of audio around it, whose features are dropped. A feature so depends on what is near it
    alone, in a clip of data and in an hour of generation alike. What lies after a piece must have been heard before it
    can be encoded, so a model that is to be live wants short pieces that look back far and ahead little.
    """

    length: int
    before: int
    after: int

    def __str__(self) -> str:
        """Return it as ids carry it, in seconds: ``4+2``, or ``0.16+4-0.2`` where it looks back further than ahead."""
        length, before, after = (f"{frames / FPS:g}" for frames in self)
        return f"{length}+{before}" if before == after else f"{length}+{before}-{after}"

    @property
    def lookahead_s(self) -> float:
        """How much later audio than its own a pixel frame's features may need: the first of a piece needs most."""
        return (self.length - 1 + self.after) / FPS + _REACH_S


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder.

    Attributes:
        role: what it is for.
        name: what configs and manifests call it; unique over all roles.
        module: it has ``load(name, location)``; a name that begins with a dot is below ``df_models.encoders``. None: it
            has no loader, since its vectors are made on the way: from the face landmarks of a build, or by rendering.
        embedded: it comes with the package, there are no weights to find.
        origin: where its weights are published, for modules that load several.
        pool: audio: how its features are pooled unless a config says otherwise.
        window: audio: how it is shown a recording unless its name says otherwise (``hubert-large@4+2``); None: its
            features depend on less than a pixel frame around them.
        layout: structure: what its numbers mean.
    """

    role: Role
    name: str
    module: str | None
    embedded: bool = False
    origin: Origin | None = None
    pool: AudioPool = "mean"
    window: AudioWindow | None = None
    layout: VectorLayout | None = None


SPEECH_WINDOW = AudioWindow(4 * FPS, 2 * FPS, 2 * FPS)
"""HuBERT's: 4 s kept, 2 s heard on either side. A pass hears 4 to 8 s, well within what pretraining saw (utterances of
up to 15.6 s: fairseq, ``max_sample_size: 250000``), and the stretches of a build (10 s at most) are cut as generation
cuts a recording. Shorter windows cost more passes and leave less context, longer ones a longer lookahead."""


def _hubert(name: str, hub_id: str) -> EncoderEntry:
    return EncoderEntry(
        "audio", name, ".audio.hubert", origin=hub_origin(name, hub_id, "Apache-2.0"), window=SPEECH_WINDOW
    )


def _image(name: str, module: str, hub_id: str, licence: str) -> EncoderEntry:
    return EncoderEntry("reference", name, module, origin=hub_origin(name, hub_id, licence))


def _flame(name: str, licence: str, how_to_get: str) -> EncoderEntry:
    return EncoderEntry("flame", name, ".face.deca", origin=Origin(name, licence, how_to_get))


ENTRIES: tuple[EncoderEntry, ...] = (
    EncoderEntry("video", "df-tiny", ".video.wan_vae", embedded=True),
    EncoderEntry("video", "wan", ".video.wan_vae"),
    EncoderEntry("video", "taew2_1", ".video.taehv"),
    EncoderEntry("audio", "logmel", ".audio.logmel", embedded=True, pool="concat"),
    _hubert("hubert-large", "facebook/hubert-large-ls960-ft"),
    _hubert("hubert-base", "facebook/hubert-base-ls960"),
    EncoderEntry("reference", "patches", ".image.patches", embedded=True),
    _image("dinov2-small", ".image.dinov2", "facebook/dinov2-small", "Apache-2.0"),
    _image("dinov2-base", ".image.dinov2", "facebook/dinov2-base", "Apache-2.0"),
    _image("dinov2-large", ".image.dinov2", "facebook/dinov2-large", "Apache-2.0"),
    _image("clip-vit-b", ".image.clip", "openai/clip-vit-base-patch16", "MIT"),
    _image("clip-vit-l", ".image.clip", "openai/clip-vit-large-patch14", "MIT"),
    _image("clip-vit-h", ".image.clip", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "MIT"),
    EncoderEntry("text", "umt5-xxl", ".text.umt5"),
    EncoderEntry("structure", "liveportrait", ".face.liveportrait", layout=LIVEPORTRAIT_70),
    EncoderEntry("structure", "mediapipe", None, embedded=True, layout=MEDIAPIPE_70),
    EncoderEntry("structure", "synthetic", None, embedded=True, layout=SYNTHETIC_70),
    _flame(
        "deca",
        "DECA licence (Max Planck Society): non-commercial scientific research",
        "accept DECA's licence and fetch deca_model.tar as https://github.com/yfeng95/DECA says",
    ),
    _flame(
        "emoca",
        "EMOCA licence (Max Planck Society): non-commercial scientific research",
        "register at https://emoca.is.tue.mpg.de and fetch EMOCA_v2_lr_mse_20 or EMOCA",
    ),
    EncoderEntry("lip sync", "syncnet_v2", ".face.syncnet"),
)
_BY_NAME = {entry.name: entry for entry in ENTRIES}
assert len(_BY_NAME) == len(ENTRIES), "two encoders have one name"


def register(entry: EncoderEntry) -> None:
    """Make an encoder of another package or script known, as if it stood in :data:`ENTRIES`.

    Every process that loads it must do so: call it where the module is imported (examples/own_encoder.py).

    Raises:
        UserError: the name is taken.
    """
    if _BY_NAME.setdefault(entry.name, entry) != entry:
        raise UserError(f"there is an encoder {entry.name!r} already; give yours another name")


def encoder_names(role: Role, *, loadable: bool = False) -> tuple[str, ...]:
    """Return the names of a role's encoders; ``loadable`` leaves out those without a loader."""
    return tuple(e.name for e in _BY_NAME.values() if e.role == role and (e.module is not None or not loadable))


def find_entry(role: Role, name: str) -> EncoderEntry:
    """Return the entry of a name, which may carry a window (``hubert-large@4+2``).

    Raises:
        UserError: the role has no encoder of that name; the nearest right one is told.
    """
    bare, _, _ = name.partition(WINDOW_MARK)
    entry = _BY_NAME.get(bare)
    if entry is None or entry.role != role:
        known = encoder_names(role)
        raise UserError(f"there is no {CALLED[role]} {bare!r}{nearest(bare, known)}; there is {', '.join(known)}")
    return entry


def origin_of(name: str) -> Origin:
    """Return where the weights of an encoder are published, for modules that load several."""
    origin = _BY_NAME[name].origin
    assert origin is not None
    return origin


def audio_window(name: str) -> AudioWindow | None:
    """Return the window that an audio encoder's name states, else its own.

    Raises:
        UserError: no such encoder, a window that is none (``hubert-large@4+2``: 4 s kept, 2 s heard on either side;
            ``hubert-large@0.16+4-0.2``: 4 s before and 0.2 s after; all whole pixel frames), or one for an encoder that
            has none.
    """
    entry = find_entry("audio", name)
    _, mark, stated = name.partition(WINDOW_MARK)
    if not mark:
        return entry.window
    if entry.window is None:
        raise UserError(f"{entry.name} hears less than a pixel frame at a time and has no window; name it alone")
    found = _WINDOW.fullmatch(stated)
    sides = [] if found is None else [found["length"], found["before"], found["after"] or found["before"]]
    frames = [float(seconds) * FPS for seconds in sides]
    if not frames or frames[0] < 1 or any(abs(count - round(count)) > 1e-6 for count in frames):
        raise UserError(
            f"{stated!r} is no window for {entry.name}; write seconds kept and heard on either side (or before-after), "
            f"each a multiple of {1 / FPS:g}, as in {entry.name}{WINDOW_MARK}{entry.window}"
        )
    return AudioWindow(*(round(count) for count in frames))


def encoder_id(role: Role, spec: str) -> str:
    """Return what manifests call the encoder of a spec: its name without a location, with its window if it has one.

    A spec that is no known name (a directory, a Hub id) is its own id.
    """
    name, _ = split_spec(spec)
    bare = name.partition(WINDOW_MARK)[0]
    if bare not in _BY_NAME or _BY_NAME[bare].role != role:
        return spec
    window = audio_window(name) if role == "audio" else None
    return bare if window is None else f"{bare}{WINDOW_MARK}{window}"


def audio_lookahead(spec: str) -> float | None:
    """Return the seconds of later audio that a pixel frame's features may need; None: an encoder that is not listed."""
    try:
        window = audio_window(split_spec(spec)[0])
    except UserError:
        return None
    return _REACH_S if window is None else window.lookahead_s


def audio_pool(spec: str) -> AudioPool:
    """Return how an audio encoder's features are pooled unless a config says otherwise; ``mean`` for unlisted ones."""
    entry = _BY_NAME.get(split_spec(spec)[0].partition(WINDOW_MARK)[0])
    return entry.pool if entry is not None and entry.role == "audio" else "mean"
