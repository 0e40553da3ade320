import pytest
import torch

from df_infer.sampling.audio_feed import AudioFeed, lookahead_frames
from df_models.errors import UserError


@pytest.mark.parametrize(("slots", "frames"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_lookahead_covers_the_future_slots(slots: int, frames: int) -> None:
    assert lookahead_frames(slots) == frames


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 5], [2, 0, 3, 1, 3]])
def test_hands_out_every_frame_once_with_its_lookahead_however_it_arrives(pieces: list[int]) -> None:
    audio = torch.arange(9.0).view(1, 9, 1, 1).expand(2, 9, 4, 3)
    feed = AudioFeed(iter(audio.split(pieces, dim=1)), lookahead=2)
    seen = []
    while (taken := feed.take(2)) is not None:
        seen.append((taken[0][0, :, 0, 0].tolist(), taken[1]))
    assert seen == [([0, 1, 2, 3], 2), ([2, 3, 4, 5], 2), ([4, 5, 6, 7], 2), ([6, 7, 8], 2), ([8], 1)]


def test_asks_a_live_source_only_for_what_it_needs() -> None:
    given = []

    def source():
        for index in range(10):
            given.append(index)
            yield torch.zeros(1, 1, 4, 3)

    feed = AudioFeed(source(), lookahead=1)
    assert feed.take(1) is not None
    assert given == [0, 1]


def test_refuses_audio_that_is_not_in_slots() -> None:
    with pytest.raises(UserError, match=r"not \[1, 9, 3\]"):
        AudioFeed(torch.zeros(1, 9, 3), lookahead=0).take(1)
