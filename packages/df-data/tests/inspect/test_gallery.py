"""The page of `df-data inspect`: self-contained, safe against any text, and showing what it says it shows."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from df_data import cli
from df_data.build.encode import mp4_bytes
from df_data.build.rejects import store_image, strip_of
from df_data.check.inspect.choose import choose_clips, strangeness_of
from df_data.check.inspect.gallery import MOST_REJECTS, write_gallery
from df_data.check.inspect.images import ClipImages, clip_images
from df_data.check.inspect.keypoints import project_keypoints
from df_data.check.inspect.page import clip_card
from df_data.check.inspect.scan import ClipFacts, scan_split
from df_data.check.inspect.sift import card_data
from df_data.check.inspect.svg import BINS, histogram
from df_data.check.inspect.timeline import TILES, WIDTH, Timeline, spoken, tile_frames, timeline
from df_data.check.summary import spread, spreads
from df_data.format.ledger import Ledger, LedgerEntry
from df_data.format.manifest import read_manifest
from df_data.format.sample import EncoderRecord, Sample
from df_data.format.shards import SplitWriter, iter_samples, staged_shards
from df_data.format.stored_video import probe_video, read_frames
from df_data.synth.clip import make_clip
from df_data.synth.corpus import SynthConfig, build_corpus
from df_models.errors import UserError

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{x}}"
VOID = {"meta", "img", "input", "br", "line", "rect", "circle", "image", "polyline", "polygon"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SynthConfig(clips=6, val_clips=2, frames=33, val_frames=33, workers=1, seed=3)
    return build_corpus(config, tmp_path_factory.mktemp("synth") / "corpus", progress=False)


class Page(HTMLParser):
    """What stands in a page: tags with their attributes, texts, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of_class(self, name: str) -> int:
        return sum(name in attributes.get("class", "").split() for _, attributes in self.tags)


def page_of(root: Path, **options: object) -> Page:
    return Page(write_gallery(root, **options).read_text(encoding="utf-8"))


def test_the_page_of_the_synthetic_corpus(corpus: Path, tmp_path: Path) -> None:
    page = page_of(corpus, out=tmp_path / "page.html", clips=5)
    assert not page.open, "every element is closed"
    assert page.of_class("clip") == 5 and page.of_class("timeline") == 5 and page.of_class("wave") == 5
    assert page.of_class("mouth") == 5 and page.of_class("mouthbox") == page.of_class("keypoints") == 5 * TILES
    text = " ".join(page.texts)
    assert (
        "decoded from the latents by df-tiny" in text and "the stored mp4" in text and "rendered person, exact" in text
    )
    assert "latent_rms" in text and "No input was rejected." in text and "No input failed." in text
    videos = [a["src"] for tag, a in page.tags if tag == "video"]
    assert videos and all(v.startswith("data:video/mp4;base64,") for v in videos)
    facts = probe_video(base64.b64decode(videos[0].partition(",")[2]))
    assert facts.pixel_format == "yuv420p" and len(facts.times) == 33, "the lossless mp4 is encoded anew for browsers"
    strips = [a["href"] for tag, a in page.tags if tag == "image"]
    for strip in strips:
        assert Image.open(io.BytesIO(base64.b64decode(strip.partition(",")[2]))).size == (TILES * 64, 64)


def test_nothing_comes_from_outside_the_page(corpus: Path, tmp_path: Path) -> None:
    path = write_gallery(corpus, tmp_path / "page.html", clips=2)
    page = Page(path.read_text())
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "style"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
        assert not any(name.startswith("on") for name in attributes)
    html = re.sub(r"data:[a-z0-9/]+;base64,[A-Za-z0-9+/=]+", "", path.read_text())
    assert not re.search(r"https?://|@import|url\(|file:", html)
    assert "default-src &#x27;none&#x27;" in html and "script-src &#x27;sha256-" in html
    assert str(corpus.parent) not in html, "no path of this machine"


def test_one_split_and_mistakes(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(page_of(corpus, out=tmp_path / "p.html", split="val", clips=3).texts)
    assert "val-3-000000" in text and "train-3-" not in text
    with pytest.raises(UserError, match="no split 'test'; it has train, val"):
        write_gallery(corpus, tmp_path / "p.html", split="test")
    assert cli.main(["inspect", str(corpus), "--out", str(tmp_path / "q.html"), "--clips", "0"]) == 2
    assert cli.main(["inspect", str(corpus), "--out", str(tmp_path / "q.html"), "--clips", "1"]) == 0
    assert "q.html: open it in a browser" in capsys.readouterr().out
    assert page_of(corpus / "val", out=tmp_path / "p.html", clips=1).of_class("clip") == 1


# -------------------- hostile and odd datasets


@pytest.fixture
def hostile(tmp_path: Path, make_sample: Callable[..., Sample]) -> Path:
    """Every text that comes from outside holds an attack; one clip has an mp4, one has one that is broken."""
    root = tmp_path / "data"
    frames = np.full((33, 16, 16, 3), 90, dtype=np.uint8)
    video = mp4_bytes(frames, np.zeros(33 * 640, dtype=np.float32), lossless=False)
    encoders = {"video_vae": EncoderRecord(id=ATTACK, sha256="v"), "audio": EncoderRecord(id=ATTACK, sha256="a")}
    writer = SplitWriter(root, "train", num_shards=1, build="b", encoders=encoders, crop=ATTACK)
    staged = []
    for index, mp4 in enumerate((video, b"broken", None)):
        sample = make_sample(index, frames=33, video=mp4)
        update = {
            "source": ATTACK,
            "licence": ATTACK,
            "identity": ATTACK,
            "text": ATTACK,
            "scores": {ATTACK: float(index), "snr": 10.0 + index},
            "phonemes": ((ATTACK, 0.0, 1.3),),
            "provenance": {ATTACK: ATTACK, "weight_lowered_by": ATTACK},
            "weight": 0.5,
            "encoders": encoders,
        }
        staged.append(writer.stage(Sample(sample.meta.model_copy(update=update), sample.tensors, mp4)))
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    ledger = Ledger(root / "ledger.jsonl")
    ledger.record(LedgerEntry(input=ATTACK, status="rejected", reason=ATTACK, scores={ATTACK: 1.0, "snr": 2.0}))
    ledger.record(LedgerEntry(input="../../etc/passwd", status="rejected", reason="no_face"))
    ledger.record(LedgerEntry(input=ATTACK + "2", status="failed", error=ATTACK))
    store_image(root, ATTACK, strip_of([frames[0]]))
    return root


def test_text_from_outside_is_never_markup(hostile: Path) -> None:
    page = page_of(hostile)
    assert not page.open
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"]
    assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in page.tags)
    assert " ".join(page.texts).count("alert(1)") > 20, "it is all shown, as text"


def test_a_lowered_weight_stands_beside_its_faults(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample(0)

    def card(**update: object) -> str:
        shown = Sample(sample.meta.model_copy(update=update), sample.tensors)
        html = clip_card(shown, "", Timeline("", ("note",)), ClipImages(None, ""), {}, {})
        return " ".join(Page(html).texts)

    faults = {"weight_lowered_by": "blurred, noisy", "seed": 7}
    lowered = card(weight=0.25, provenance=faults)
    assert "weight lowered by blurred, noisy" in lowered and lowered.count("blurred") == 1 and "seed = 7" in lowered
    assert "weight lowered by (not recorded)" in card(weight=0.5, provenance={})
    assert "lowered" not in card(weight=1.0, provenance={})


def test_what_cannot_be_shown_is_told(hostile: Path) -> None:
    text = " ".join(page_of(hostile).texts)
    assert "no images: its mp4 cannot be decoded" in text
    assert "no images: " in text and "keypoints: not drawn" in text
    assert "audio: not drawn" in text and "mouth opening: not stored" in text


def test_rejects_have_image_reason_and_scores(hostile: Path) -> None:
    page = page_of(hostile)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1 and images[0]["src"].startswith("data:image/jpeg;base64,")
    assert page.of_class("none") == 1
    text = " ".join(page.texts)
    assert "../../etc/passwd" in text and "no_face" in text and "3 + 1 rejected" in text


def test_many_rejects_are_counted_and_every_reason_is_shown(hostile: Path) -> None:
    entries = [LedgerEntry(input=f"clip{i}", status="rejected", reason="blur") for i in range(3 * MOST_REJECTS)]
    Ledger(hostile / "ledger.jsonl").record(*entries)
    text = " ".join(page_of(hostile).texts)
    assert f"{MOST_REJECTS} of {3 * MOST_REJECTS + 2}" in text and f"{3 * MOST_REJECTS} × blur" in text
    assert "../../etc/passwd" in text


def test_cards_are_sorted_and_filtered_by_any_score_and_reason(hostile: Path) -> None:
    """What the script reads; that it sorts was looked at in a browser."""
    page = page_of(hostile)
    cards = [a for tag, a in page.tags if tag == "article"]
    clips, rejects = [a for a in cards if "clip" in a["class"]], [a for a in cards if "clip" not in a["class"]]
    assert sorted(json.loads(a["data-scores"])["snr"] for a in clips) == [10, 11, 12]
    assert all(json.loads(a["data-reasons"]) == ["train", ATTACK] for a in clips), "a split, and the faults"
    assert json.loads(clips[0]["data-scores"])["weight"] == 0.5
    assert [json.loads(a["data-reasons"]) for a in rejects] == [[ATTACK], ["no_face"]]
    assert json.loads(rejects[0]["data-scores"]) == {ATTACK: 1, "snr": 2}
    assert page.of_class("sift") == 2 and page.of_class("by") == len(cards) == 5
    options = [a["value"] for tag, a in page.tags if tag == "option"]
    for offered in ("snr", "weight", "latent_rms", "no_face", "train"):
        assert offered in options
    assert options.count(ATTACK) == 4, "as a score and as a reason, of clips and of rejects"
    assert card_data({"a": float("nan"), "b": 1.0}, [])["data_scores"] == '{"b": 1.0}', "JSON knows no NaN"


def test_so_many_rejects_as_are_asked_for(hostile: Path) -> None:
    Ledger(hostile / "ledger.jsonl").record(
        *(LedgerEntry(input=f"c{i}", status="rejected", reason="b") for i in range(9))
    )
    page = page_of(hostile, rejects=4)
    assert page.of_class("none") + sum(tag == "img" for tag, _ in page.tags) == 4
    assert "--rejects 11 shows all" in " ".join(page.texts)
    assert cli.main(["inspect", str(hostile), "--rejects", "-1"]) == 2


# -------------------- the parts


def test_frames_stand_over_their_moment(corpus: Path) -> None:
    assert tile_frames(33) == [2, 6, 10, 14, 18, 22, 26, 30]
    assert tile_frames(1) == [0] * TILES
    sample = next(iter_samples(corpus / "train"))
    drawing = timeline(sample, clip_images(sample), project_keypoints(sample)).drawing
    lines = [float(x) for x in re.findall(r'x1="([\d.]+)" y1="0"', drawing)]
    assert lines == pytest.approx([frame / 33 * WIDTH for frame in tile_frames(33)], abs=0.06)
    for tile, line in enumerate(lines):
        assert tile * WIDTH / TILES <= line < (tile + 1) * WIDTH / TILES


def test_keypoints_lie_where_the_renderer_says(corpus: Path) -> None:
    for sample in iter_samples(corpus / "val"):
        number, seed = sample.meta.provenance["identity"], 3 * 10_000_019 + 5_000_000 + int(sample.key[-6:])
        assert isinstance(number, int)
        clip = make_clip(seed, number, 33, 64)
        found = project_keypoints(sample).points
        assert found is not None
        np.testing.assert_allclose(found, clip.landmarks2d, atol=0.01)
        inside = (found[:, 12] >= clip.mouth_boxes[:, :2]) & (found[:, 12] <= clip.mouth_boxes[:, 2:])
        assert inside.all(), "the upper lip lies in the mouth box"


def test_frames_come_from_the_mp4_exactly(corpus: Path) -> None:
    sample = next(iter_samples(corpus / "val"))
    assert sample.video is not None
    images = clip_images(sample)
    assert images.frames is not None and images.wave is not None
    np.testing.assert_array_equal(images.frames, read_frames(sample.video))
    assert abs(len(images.wave) - 33 * 640) <= 1024


def test_latents_are_not_decoded_by_another_vae(corpus: Path) -> None:
    sample = next(iter_samples(corpus / "train"))
    record = sample.meta.encoders["video_vae"].model_copy(update={"sha256": "other"})
    meta = sample.meta.model_copy(update={"encoders": sample.meta.encoders | {"video_vae": record}})
    found = clip_images(Sample(meta, sample.tensors))
    assert found.frames is None and "is not the dataset's" in found.source


def test_words_are_those_of_the_phonemes_or_the_provenance(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample(0)
    assert spoken(sample) == []
    update = {"text": "bin blue", "provenance": {"word_starts": [0.1, 0.3], "word_ends": [0.3, 0.5]}}
    assert spoken(Sample(sample.meta.model_copy(update=update), {})) == [("bin", 0.1, 0.3), ("blue", 0.3, 0.5)]
    update["text"] = "bin"
    assert spoken(Sample(sample.meta.model_copy(update=update), {})) == [], "words and times must be equally many"


def facts(values: list[float], **more: float) -> list[ClipFacts]:
    return [ClipFacts(f"clip-{i:03d}", Path("shard"), "who", {"snr": v, **more}) for i, v in enumerate(values)]


def test_half_of_the_clips_are_the_strangest(tmp_path: Path) -> None:
    clips = facts([*np.linspace(0, 1, 60).tolist(), 50.0, -8.0], constant=1.0)
    ranges = spreads({"snr": [f.values["snr"] for f in clips], "constant": [1.0] * 62})
    chosen = choose_clips(clips, ranges, 10)
    assert len(chosen) == len({choice.facts.key for choice in chosen}) == 10
    assert {c.facts.key: c.why for c in chosen if "hash" not in c.why} == {
        "clip-060": "highest snr",
        "clip-061": "lowest snr",
    }
    assert choose_clips(clips[::-1], ranges, 10) == chosen, "whatever the order of the shards"
    assert len(choose_clips(clips[:3], ranges, 10)) == 3
    assert choose_clips([], {}, 10) == []
    assert strangeness_of(5.0, spread([5.0] * 9)) == 0.0


def bars(svg: str, kind: str) -> list[tuple[float, float]]:
    found = re.findall(rf'<rect x="([\d.]+)" y="[\d.-]+" width="[\d.]+" height="([\d.]+)" class="{kind}"', svg)
    return [(float(x), float(height)) for x, height in found]


def test_a_histogram_shows_the_shares() -> None:
    svg = histogram([0.0] * 4 + [1.0] * 2, [1.0])
    (left, most), (right, half) = bars(svg, "accepted")
    assert left == 0 and right > 220 and most == pytest.approx(2 * half, abs=0.1)
    assert len(bars(svg, "rejected")) == 1 and bars(svg, "rejected")[0][0] == right
    assert len(bars(histogram(np.arange(float(BINS)).tolist(), []), "accepted")) == BINS
    assert len(bars(histogram([3.0, 3.0], []), "accepted")) == 1, "equal values make one bar"


def test_the_facts_are_those_of_every_clip(corpus: Path) -> None:
    found = scan_split(corpus / "train", read_manifest(corpus / "train"))
    assert len(found) == 6 and all(0.5 < fact.values["latent_rms"] < 2 for fact in found)
    assert json.loads((corpus / "train" / "manifest.json").read_text())["shards"][0]["count"] == 6
