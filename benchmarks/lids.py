"""What closing the eyelids adds to a structure, of real people: fitted on some datasets, looked at on others.

The structure must be 0 where a face is at rest, as df-data's ``mediapipe`` is, and clips must say how far the lids are
closed (``blink`` of their truth). Per person: the mean structure of frames with closed lids, less that with open ones.
What is fitted is the mean over the people; what is reported of other people is how far the constant of
:mod:`df_models.blinks` goes along with their blinks.

    uv run python benchmarks/lids.py data/people --report data/grid

Both are datasets that df-data built with structure of `mediapipe`. ``data/grid`` is made by `df-data build --config
configs/data/grid.yaml`; ``data/people`` stands for one of your own, made of a folder of clips of several people, an
identity each: `df-data build FOLDER --out data/people`. The project's own constants were fitted on the clips of five
people that cannot be passed on, and the other person that they were looked at on is one speaker of GRID (s1): fitted
on other people they will differ, and how well they go along with somebody else is known of one face.

Shape legend: T frames, E entries of the eyelids.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import RESULTS, table, write_result

from df_data.format.shards import iter_samples
from df_models.blinks import closing_eyelids
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import check_output_directory
from df_models.structure import EYELIDS, MEDIAPIPE_70, StructureLayout

LAYOUT = StructureLayout.of(MEDIAPIPE_70, "mediapipe")
LIDS = [entry for entry, is_lid in enumerate(LAYOUT.entries((EYELIDS,))) if is_lid]
CLOSED, OPEN = 0.5, 0.1
"""Of the blink blendshape, which is 0.05 on open eyes, and on closed ones 0.6 to 0.8: more people reach 0.5, which
is not quite shut."""
FEWEST = 3
"""Closed frames of a person whose mean is taken."""


class Person(NamedTuple):
    """Lids ``[T, E]`` and how far they are closed ``[T]``."""

    lids_TE: np.ndarray
    blink_T: np.ndarray

    def closing(self) -> np.ndarray | None:
        """What closing adds ``[E]``; None where the lids are hardly ever closed."""
        closed_T, open_T = self.blink_T >= CLOSED, self.blink_T <= max(OPEN, float(np.median(self.blink_T)))
        if closed_T.sum() < FEWEST:
            return None
        return self.lids_TE[closed_T].mean(axis=0) - self.lids_TE[open_T].mean(axis=0)


def people(root: Path) -> dict[str, Person]:
    """The people of a dataset, all splits.

    Raises:
        UserError: there is none, or its clips do not say how far lids are closed.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for split in sorted(path.parent for path in root.glob("*/manifest.json")):
        for sample in iter_samples(split, video=False):
            names = sample.meta.truth_names or ()
            if "blink" not in names or sample.meta.encoders["structure"].id != LAYOUT.encoder:
                raise UserError(f"{root}: its clips have no structure of {LAYOUT.encoder} with blinks")
            blink_T = sample.tensors["truth"][:, names.index("blink")]
            found[sample.meta.identity].append((sample.tensors["structure"][:, LIDS].numpy(), blink_T.numpy()))
    if not found:
        raise UserError(f"{root} holds no clips; give a dataset that df-data build wrote")
    return {who: Person(*(np.concatenate(part) for part in zip(*clips))) for who, clips in found.items()}


def main(argv: list[str]) -> int:
    """Fit, look, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fit", type=Path, nargs="+", help="datasets to fit on")
    parser.add_argument("--report", type=Path, nargs="+", required=True, help="datasets of other people")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args(argv)
    args.preset = "mediapipe"
    check_output_directory(args.out)
    each = [closing for root in args.fit for who in people(root).values() if (closing := who.closing()) is not None]
    if not each:
        raise UserError(f"nobody there closes the eyes in {FEWEST} frames; give longer clips")
    known = closing_eyelids(LAYOUT)
    assert known is not None
    constant, names = known[LIDS], [LAYOUT.vector.names[entry] for entry in LIDS]
    rows = [
        (name, f"{mean:.3f}", f"{spread:.3f}", f"{value:.3f}")
        for name, mean, spread, value in zip(names, np.mean(each, axis=0), np.std(each, axis=0), constant, strict=True)
    ]
    text = f"Fitted on {len(each)} people, in neutral face heights:\n\n"
    text += table(("entry", "mean over people", "their spread", "the constant"), rows)
    seen = []
    for who, person in (item for root in args.report for item in people(root).items()):
        along_T = person.lids_TE @ constant / (constant @ constant)
        closing = person.closing()
        size = float("nan") if closing is None else float(closing @ constant / (constant @ constant))
        fits = float(np.corrcoef(along_T, person.blink_T)[0, 1])
        seen.append((who, len(along_T), f"{fits:.2f}", f"{size:.2f}", f"{along_T[person.blink_T <= OPEN].mean():.2f}"))
    text += "\n\nOther people: along the constant, 0 is open and 1 closed.\n\n"
    text += table(("person", "frames", "correlation with the blinks", "closed", "open"), seen)
    figures = {"fitted": np.mean(each, axis=0).tolist(), "people": [list(map(str, row)) for row in seen]}
    print(f"wrote {write_result(args.out, 'lids', args, torch.device('cpu'), figures, text)}\n\n{text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "lids.py"))
