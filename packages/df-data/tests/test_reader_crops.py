from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from df_data.format.shards import iter_samples
from df_data.reading import ShardReader
from df_data.reading.batch import mouth_mask, slots
from df_models.errors import UserError
from df_models.time import pixel_length, pixels_of_latent, pool_audio, to_slots

CLIPS, FRAMES, CROP = 12, 33, 4


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, make_split: Callable[..., object]) -> Path:
    root = tmp_path_factory.mktemp("crops")
    make_split(root, CLIPS, num_shards=2, frames=FRAMES)
    return root / "train"


def reader(split: Path, **options: Any) -> ShardReader:
    return ShardReader(split, **{"batch_size": 4, "seed": 7, "num_frames": CROP, **options})


@given(total=st.integers(1, 12), data=st.data())
@settings(max_examples=80, deadline=None)
def test_slots_of_a_crop_are_the_pixel_frames_that_its_latents_cover(total: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, total - 1))
    length = data.draw(st.integers(1, total - start))
    rate = data.draw(st.integers(1, 3))
    rows = np.arange(rate * pixel_length(total), dtype=np.float32)[:, None]
    for starts in ([start], [start, 0], [0, start]):
        found = slots([rows] * len(starts), starts, length, rate)
        assert found.shape == (len(starts), 4 * length * rate, 1)
        for i, first in enumerate(starts):
            for k, frame in enumerate(found[i, :, 0].unflatten(0, (length, 4 * rate)).tolist()):
                pixels = list(pixels_of_latent(first + k)) * (4 if first + k == 0 else 1)
                assert frame == [rate * pixel + r for pixel in pixels for r in range(rate)]


def test_a_marked_crop_is_aligned_in_every_stream_and_says_where_it_starts(split: Path) -> None:
    samples = {sample.key: sample.tensors for sample in iter_samples(split)}
    starts: Counter[int] = Counter()
    for batch in islice(reader(split, start="marked"), 200):
        assert batch.start.dtype == torch.int64 and batch.anchored.dtype == torch.bool
        for i, (key, start) in enumerate(zip(batch.keys, batch.start.tolist())):
            tensors, crop = samples[key], slice(start, start + CROP)
            starts[start] += 1
            assert bool(batch.anchored[i]) == (start == 0)
            assert torch.equal(batch.video[i], tensors["video_latent"].float()[crop])
            assert torch.equal(batch.structure[i], to_slots(tensors["structure"])[crop])
            assert torch.equal(batch.audio[i], to_slots(pool_audio(tensors["audio"].float(), "concat"))[crop])
            assert batch.flame is not None and torch.equal(batch.flame[i], to_slots(tensors["flame"])[crop])
            assert torch.equal(batch.mouth_mask[i], mouth_mask(to_slots(tensors["mouth_boxes"])[crop], 2, 2))
            pick = [torch.equal(batch.reference_latent[i], r.float()) for r in tensors["reference_latents"]].index(True)
            at_start = int(tensors["reference_frames"][pick]) == 0 and start == 0
            assert int(batch.reference_frame[i]) == (0 if at_start else -1)
    assert sorted(starts) == list(range(9 - CROP + 1)), "every start that leaves room, and no other"
    assert min(starts.values()) > 0.6 * starts.total() / len(starts)


def test_a_start_is_drawn_for_epoch_and_clip_and_not_for_ranks(split: Path) -> None:
    def drawn(**options: Any) -> dict[tuple[str, int], int]:
        batches = list(islice(reader(split, start="marked", **options), 12))
        return {
            (key, sample_id): start
            for batch in batches
            for key, sample_id, start in zip(batch.keys, batch.sample_ids.tolist(), batch.start.tolist())
        }

    one = drawn()
    two = drawn(rank=0, world_size=2) | drawn(rank=1, world_size=2, num_workers=2, cache_bytes=0)
    assert one.items() <= two.items()
    by_key = {key: {start for (k, _), start in one.items() if k == key} for key, _ in one}
    assert max(map(len, by_key.values())) > 1, "another epoch starts elsewhere"


def test_anchored_crops_all_start_at_the_start(split: Path) -> None:
    for batch in islice(reader(split), 5):
        assert batch.anchored.all()


def test_conditions_are_dropped_by_their_share_as_zeros_and_told(split: Path) -> None:
    plain = reader(split)
    dropped = reader(split, drop_audio=0.25, drop_reference=0.5, num_workers=1)
    audio, reference, both, total = 0, 0, 0, 0
    for a, b in zip(islice(plain, 300), dropped):
        assert a.keys == b.keys and torch.equal(a.video, b.video) and torch.equal(a.structure, b.structure)
        assert not a.audio_dropped.any() and not a.reference_dropped.any()
        no_audio, no_reference = b.audio_dropped, b.reference_dropped
        assert not b.audio[no_audio].any() and torch.equal(b.audio[~no_audio], a.audio[~no_audio])
        for name in ("reference_latent", "reference_tokens"):
            ours, theirs = getattr(b, name), getattr(a, name)
            assert not ours[no_reference].any() and torch.equal(ours[~no_reference], theirs[~no_reference])
        assert (b.reference_frame[no_reference] == -1).all()
        assert torch.equal(b.reference_frame[~no_reference], a.reference_frame[~no_reference])
        audio, reference = audio + int(no_audio.sum()), reference + int(no_reference.sum())
        both, total = both + int((no_audio & no_reference).sum()), total + len(b)
    assert abs(audio / total - 0.25) < 0.05 and abs(reference / total - 0.5) < 0.05
    assert abs(both / total - 0.125) < 0.04, "one does not follow from the other"


def test_cached_clips_stay_whole_where_conditions_are_dropped(split: Path) -> None:
    """Zeros are written into the batch, never into the clip that is kept for the next epoch."""
    always = reader(split, drop_audio=1.0, drop_reference=1.0)
    for batch in islice(always, 6):
        assert not batch.audio.any() and not batch.reference_latent.any() and batch.video[:, :, 0].any()
    assert all(clip.audio.any() and clip.reference_latents.any() for clip in always._cache.values())


def test_options_that_reach_nothing_are_refused(split: Path) -> None:
    with pytest.raises(UserError, match="only one start"):
        reader(split, num_frames=None, start="marked")
    with pytest.raises(UserError, match="'anchored' or 'marked'"):
        reader(split, start="random")
    for name in ("drop_audio", "drop_reference"):
        with pytest.raises(UserError, match="share"):
            reader(split, **{name: 1.5})
    with pytest.raises(UserError, match="'stop' or 'skip'"):
        reader(split, on_error="ignore")
    with pytest.raises(UserError, match="for URLs and pipes"):
        reader(split, cache_dir=split / "cache")
