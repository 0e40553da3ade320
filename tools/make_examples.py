"""Make the synthetic portrait and speech of `examples/` and the server's page, and the documents' image of the corpus.

    uv run python tools/make_examples.py

The person and the words belong to the validation split: no model of this repository was trained on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from df_data.synth.clip import IDENTITIES, make_clip
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.render import render
from df_models.media import write_image, write_wav

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "packages/df-infer/src/df_infer/serve/page"
"""What the server offers must come with its package, which the repository's examples do not."""
PERSON = IDENTITIES["val"].start + 500_021
SEED = 77
SECONDS = 6


def main() -> None:
    """Write the files."""
    portrait = render(Identity.sample(PERSON), FaceTracks.neutral(1, yaw=4.0, pitch=1.0), 256).frames[0]
    speech = make_clip(SEED, PERSON, 25 * SECONDS, 32).wave
    for folder in (ROOT / "examples", PAGE):
        write_image(folder / "face.png", portrait)
        write_wav(folder / "speech.wav", speech)
    rows = [make_clip(SEED + i, IDENTITIES["val"].start + 600_000 + i, 61, 128).frames[::10] for i in range(4)]
    write_image(
        ROOT / "docs" / "images" / "corpus.png", np.concatenate([np.concatenate(list(r), axis=1) for r in rows])
    )


if __name__ == "__main__":
    main()
