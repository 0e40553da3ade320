"""`df-data inspect`: read a dataset, choose clips, write the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from df_data.build.rejects import read_image
from df_data.check.inspect.choose import choose_clips
from df_data.check.inspect.images import clip_images
from df_data.check.inspect.keypoints import project_keypoints
from df_data.check.inspect.page import (
    Chart,
    chart_section,
    clip_card,
    clip_reasons,
    document,
    reason_tags,
    reject_card,
    table,
    toolbar,
    totals,
)
from df_data.check.inspect.scan import ClipFacts, read_clips, scan_split
from df_data.check.inspect.sift import sift_bar
from df_data.check.inspect.svg import element, escape
from df_data.check.inspect.timeline import timeline
from df_data.check.summary import Spread, gather, spreads
from df_data.check.wording import duration
from df_data.common.hashing import hash_int
from df_data.format.dataset import split_directories
from df_data.format.ledger import LEDGER_NAME, Ledger, LedgerEntry
from df_data.format.manifest import Manifest, read_manifest
from df_models.errors import UserError
from df_models.files import atomic_write, check_output
from df_models.time import FPS

PAGE_NAME = "inspect.html"
MOST_REJECTS = 60
MOST_FAILURES = 200
"""So many rejects (unless another number is asked for) and failures are listed at most."""


@dataclass(frozen=True)
class _Dataset:
    """What the page is made of: the splits' manifests, the clips' facts, the ledger if there is one."""

    root: Path
    manifests: dict[Path, Manifest]
    facts: list[ClipFacts]
    ranges: dict[str, Spread]
    ledger: Ledger | None
    most_rejects: int

    @property
    def clips(self) -> int:
        return sum(manifest.count for manifest in self.manifests.values())

    def of_status(self, status: str) -> list[LedgerEntry]:
        entries = self.ledger.entries.values() if self.ledger else ()
        return [entry for entry in entries if entry.status == status]


def write_gallery(
    directory: Path,
    out: Path | None = None,
    *,
    clips: int = 12,
    split: str | None = None,
    rejects: int = MOST_REJECTS,
) -> Path:
    """Write the page of a dataset, or of one split of it, and return its path.

    Args:
        out: the page; ``inspect.html`` in the dataset by default.
        clips: how many clips are shown.
        split: show clips of this split only.
        rejects: how many rejected inputs are shown at most; the counts are always of all.

    Raises:
        UserError: no dataset, no such split, a damaged shard or manifest.
    """
    if clips < 1:
        raise UserError(f"--clips {clips}: show at least one")
    if rejects < 0:
        raise UserError(f"--rejects {rejects}: show 0 or more")
    page = directory / PAGE_NAME if out is None else out
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {page}: the page must end in .html")
    if not directory.is_dir():
        raise UserError(f"no dataset {directory}: give the directory that df-data build or synth made")
    check_output(page)
    dataset = _read(directory, split, rejects)
    sections = {"clips": "Clips", "scores": "Scores", "rejects": "Rejects", "failed": "Failed inputs"}
    parts = [
        element("h1", escape(directory.resolve().name)),
        element("p", escape(_subtitle(dataset)), class_="soft"),
        totals(_totals(dataset)),
        toolbar(sections),
        element("h2", "Clips", id="clips"),
        *_clip_cards(dataset, clips),
        element("h2", "Scores", id="scores"),
        _scores(dataset),
        element("h2", "Rejects", id="rejects"),
        *_rejects(dataset),
        element("h2", "Failed inputs", id="failed"),
        _failures(dataset),
    ]
    atomic_write(page, document(f"{directory.resolve().name}: df-data inspect", parts))
    return page


def _read(directory: Path, split: str | None, rejects: int) -> _Dataset:
    manifests = {path: read_manifest(path) for path in split_directories(directory)}
    if split is not None:
        known = sorted(manifest.split for manifest in manifests.values())
        manifests = {path: manifest for path, manifest in manifests.items() if manifest.split == split}
        if not manifests:
            raise UserError(f"{directory} has no split {split!r}; it has {', '.join(known)}")
    facts = [fact for path, manifest in manifests.items() for fact in scan_split(path, manifest)]
    values: dict[str, list[float]] = {}
    for fact in facts:
        gather(values, fact.values)
    ledger = Ledger(directory / LEDGER_NAME) if (directory / LEDGER_NAME).is_file() else None
    return _Dataset(directory, manifests, facts, spreads(values), ledger, rejects)


def _subtitle(dataset: _Dataset) -> str:
    manifests = list(dataset.manifests.values())
    encoders = {role: made.id for manifest in manifests for role, made in manifest.encoders.items()}
    named = ", ".join(f"{role} {name}" for role, name in sorted(encoders.items()))
    unfinished = [manifest.split for manifest in manifests if not manifest.complete]
    state = f"NOT complete: {', '.join(unfinished)}. " if unfinished else ""
    return f"{state}Images {manifests[0].width}x{manifests[0].height}, crop {manifests[0].crop}. Encoders: {named}."


def _totals(dataset: _Dataset) -> dict[str, str]:
    found = {"clips": f"{dataset.clips:,}"}
    frames = sum(manifest.pixel_frames for manifest in dataset.manifests.values())
    found["of video"] = duration(frames / FPS)
    found |= {
        f"clips in {manifest.split}, {duration(manifest.pixel_frames / FPS)}": f"{manifest.count:,}"
        for manifest in dataset.manifests.values()
    }
    persons = {fact.identity for fact in dataset.facts}
    complete = len(dataset.facts) == dataset.clips
    found["persons" if complete else f"persons in {len(dataset.facts):,} clips"] = f"{len(persons):,}"
    if dataset.ledger:
        found |= {f"inputs {status}": f"{number:,}" for status, number in dataset.ledger.counts().items()}
    return found


def _clip_cards(dataset: _Dataset, count: int) -> Iterator[str]:
    chosen = choose_clips(dataset.facts, dataset.ranges, count)
    yield element(
        "p",
        "Red values lie outside the dataset's 5-95 % range. Each frame stands over its moment in the audio: open lips "
        "(orange) should meet loud audio, and the box should hold the mouth.",
        class_="soft",
    )
    if len(chosen) < dataset.clips:
        yield element(
            "p", f"{len(chosen)} of {dataset.clips:,} clips; --clips {dataset.clips} shows all.", class_="soft"
        )
    cards: list[str] = []
    reasons: list[str] = []
    for choice, sample in zip(chosen, read_clips([choice.facts for choice in chosen])):
        images = clip_images(sample)
        drawn = timeline(sample, images, project_keypoints(sample))
        cards.append(clip_card(sample, choice.why, drawn, images, choice.facts.values, dataset.ranges))
        reasons += clip_reasons(sample)
    yield sift_bar("clip-cards", {"weight", *dataset.ranges}, reasons, "split or fault")
    yield element("div", "".join(cards), id="clip-cards")


def _scores(dataset: _Dataset) -> str:
    accepted: dict[str, list[float]] = defaultdict(list)
    rejected: dict[str, list[float]] = defaultdict(list)
    for fact in dataset.facts:
        gather(accepted, fact.values)
    for entry in dataset.of_status("rejected"):
        gather(rejected, entry.scores)
    charts = [Chart(name, accepted.get(name, ()), rejected.get(name, ())) for name in sorted({*accepted, *rejected})]
    share = f"{len(dataset.facts):,} of {dataset.clips:,}" if len(dataset.facts) < dataset.clips else "all"
    note = (
        f"Blue: {share} clips. Red, downward: rejected inputs, as far as they were measured before they were refused. "
        "Each side fills its own height."
    )
    return chart_section(charts, note)


def _rejects(dataset: _Dataset) -> Iterator[str]:
    entries = dataset.of_status("rejected")
    if not entries:
        yield element("p", "No input was rejected." if dataset.ledger else "There is no ledger.", class_="soft")
        return
    reasons = dataset.ledger.reasons() if dataset.ledger else {}
    yield reason_tags(reasons)
    shown = _across_reasons(entries, reasons, dataset.most_rejects)
    if len(shown) < len(entries):
        more = f"{len(shown)} of {len(entries):,}, of every reason some; --rejects {len(entries)} shows all."
        yield element("p", more)
    scores = {name for entry in shown for name in entry.scores}
    yield sift_bar("reject-cards", scores, (entry.reason or "" for entry in shown), "reason")
    cards = (reject_card(entry, read_image(dataset.root, entry.input)) for entry in shown)
    yield element("div", "".join(cards), class_="rejects", id="reject-cards")


def _across_reasons(entries: list[LedgerEntry], reasons: Mapping[str, int], most: int) -> list[LedgerEntry]:
    """Take turns among the reasons until the page is full; of each reason by a hash of the input's name."""
    mixed = sorted(entries, key=lambda entry: hash_int("inspect", entry.input))
    turn: dict[str, int] = defaultdict(int)
    ranked = []
    for entry in mixed:
        ranked.append((turn[entry.reason or ""], entry))
        turn[entry.reason or ""] += 1
    taken = [entry for _, entry in sorted(ranked, key=lambda item: item[0])[:most]]
    order = list(reasons)
    return sorted(taken, key=lambda entry: (order.index(entry.reason or ""), entry.input))


def _failures(dataset: _Dataset) -> str:
    entries = dataset.of_status("failed")
    if not entries:
        return element("p", "No input failed." if dataset.ledger else "There is no ledger.", class_="soft")
    rows = [(entry.input, entry.error or "") for entry in entries[:MOST_FAILURES]]
    more = f"{len(rows)} of {len(entries):,}; all are in {LEDGER_NAME}." if len(rows) < len(entries) else ""
    return element("div", table(("input", "error"), rows) + element("p", more), class_="card")
