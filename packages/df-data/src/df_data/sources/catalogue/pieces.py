"""Long clips in pieces: a build takes the beginning of each video only, so minutes of speech are cut into several."""

from __future__ import annotations

from df_data.sources.catalogue.clip import CatalogueClip
from df_models.errors import UserError

LONGEST_NAME = 110
"""Of a clip that is cut into pieces: their numbers must fit behind it."""


def into_pieces(clip: CatalogueClip, seconds: float | None, shortest: float = 2.0) -> list[CatalogueClip]:
    """Return the clip in pieces of ``seconds``, one after the other without a gap, or as it is.

    What is left at the end and shorter than ``shortest`` belongs to the last piece. A clip of unknown end stays whole.

    Raises:
        UserError: the clip's name leaves no room for a number.
    """
    if seconds is None or clip.end_s is None or clip.end_s - clip.start_s <= seconds + shortest:
        return [clip]
    if len(clip.clip) > LONGEST_NAME:
        raise UserError(f"the clip {clip.clip} cannot be cut into pieces: its name is too long; set piece_s=null")
    starts = []
    while clip.end_s - (start := clip.start_s + len(starts) * seconds) >= shortest:
        starts.append(start)
    ends = [*starts[1:], clip.end_s]
    return [
        clip.model_copy(update={"clip": f"{clip.clip}-{index:03d}", "start_s": start, "end_s": end})
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
