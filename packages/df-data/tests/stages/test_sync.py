"""The evidence of audio and lips: pure decisions on curves made by hand, and speech whose articulation is known."""

from __future__ import annotations

import numpy as np
import pytest

from df_data.build.build import PIPELINE
from df_data.stages.readings import Readings
from df_data.stages.rejection import Rejected
from df_data.stages.sync import (
    LAGS,
    FileSync,
    LagCurve,
    SyncFilter,
    SyncVerdict,
    check_sync,
    lag_correlations,
    lag_curve,
    verdict,
)
from df_data.stages.sync_tracks import FIT, STEP_S, audio_tracks, sync_fit, without_slow_part
from df_data.synth.clip import face_tracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.structure import truths
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.files import sha256_file
from df_models.time import samples_for

FRAMES = 250
Clip = tuple[Readings, np.ndarray]


def curve(seconds: float, at_s: float | None, value: float = 0.36) -> LagCurve:
    """A statistic of 0 but for one lag, of so many seconds."""
    statistic = np.zeros(len(LAGS))
    if at_s is not None:
        statistic[np.abs(LAGS * STEP_S - at_s) < 0.03] = value
    return LagCurve(statistic, np.maximum(seconds - np.abs(LAGS * STEP_S), 0), 0.45, 0.1, 0.24)


def decide(*curves: LagCurve) -> str:
    """What becomes of the last of a file's stretches."""
    filters, known, outcome = SyncFilter(), FileSync(), ""
    for one in curves:
        own, told = verdict(one, filters.max_offset), known.together("lips", one)
        known.add("lips", one)
        try:
            doubt = check_sync(own, verdict(told, filters.max_offset), filters, {})
            outcome = "halved" if doubt else "full"
        except Rejected as refused:
            outcome = refused.reason
    return outcome


def test_evidence_grows_with_what_was_seen_both_ways() -> None:
    lengths = (2.0, 3.0, 5.0, 10.0, 20.0)
    together, apart = ([verdict(curve(s, at), 0.1).evidence for s in lengths] for at in (0.0, None))
    assert together == sorted(together) and together[0] < 1.3 < together[-1] - 3
    assert apart == sorted(apart, reverse=True) and apart[0] > -1 > apart[-1] + 1


@pytest.mark.parametrize("late", [-1.8, -0.5, -0.2, 0.2, 0.5, 1.8])
def test_offsets_up_to_two_seconds_are_found(late: float) -> None:
    said = verdict(curve(10.0, late), 0.1)
    assert said.offset == pytest.approx(late, abs=0.021) and said.shifted and said.evidence < -2
    assert verdict(curve(10.0, late / 20), 0.1).evidence > 2


def test_a_short_stretch_refuses_nothing_alone_and_with_its_file_it_does() -> None:
    assert decide(curve(4.9, 1.0, 0.9)) == "halved"
    assert decide(curve(9.0, 1.0)) == "sound_offset"
    assert decide(curve(3.0, 0.5), curve(3.0, 0.5), curve(3.0, 0.5)) == "sound_offset"
    assert decide(curve(20.0, None)) == "other_speech"


def test_stretches_of_one_file_share_what_they_know() -> None:
    assert decide(curve(2.0, 0.0)) == "halved"
    assert decide(curve(10.0, 0.0), curve(2.0, 0.0)) == "full"
    assert decide(curve(10.0, 0.0), curve(4.9, None)) == "halved"  # it speaks against its file


def test_what_is_sure_of_itself_is_not_refused_for_what_was_before_it() -> None:
    assert decide(*[curve(10.0, None)] * 6, curve(10.0, 0.0)) == "halved"


def test_another_s_speech_amid_good_stretches_never_counts_fully() -> None:
    for before in (1, 6, 30):
        assert decide(*[curve(10.0, 0.0)] * before, curve(8.0, None)) in ("halved", "other_speech")
        assert decide(*[curve(10.0, 0.0)] * before, curve(8.0, 0.0, 0.18)) == "halved", "neither here nor there"


def test_lags_that_were_not_compared_are_no_evidence(clips: list[Clip]) -> None:
    lips, wave = clips[0]
    short = Readings(*(track[:50] for track in vars(lips).values() if track is not None))
    told = lag_curve(short, wave[: samples_for(50)])
    assert told is not None and told.seconds[0] == 0 and told.seconds[len(LAGS) // 2] == pytest.approx(2.0, abs=0.05)
    twenty = told
    for _ in range(19):
        twenty = twenty.with_more(told)
    assert twenty.seconds[0] == 0


def test_another_fit_is_another_pipeline() -> None:
    """Half a dataset of one fit must not go on with another: raise `PIPELINE` with the file, and this hash."""
    assert (PIPELINE, sha256_file(FIT)[:12]) == ("9", "c9bc42eab1c4")


def test_what_was_seen_counts_by_its_seconds() -> None:
    both = curve(2.0, 0.0, 0.3).with_more(curve(6.0, 0.0, 0.5))
    assert both.length == 8 and both.statistic[len(LAGS) // 2] == pytest.approx(0.45)


def test_refusals_say_which_way() -> None:
    sure = SyncVerdict(-3.0, 0.3, True, 10.0)
    with pytest.raises(Rejected, match="sound_offset: the audio is 300 ms late for the lips"):
        check_sync(sure, sure, SyncFilter(), {})
    early = SyncVerdict(-3.0, -1.5, True, 10.0)
    with pytest.raises(Rejected, match="1500 ms early"):
        check_sync(early, early, SyncFilter(), {})
    nowhere = SyncVerdict(-3.0, 0.0, False, 10.0)
    with pytest.raises(Rejected, match="other_speech: lips and audio go together nowhere within 2 s"):
        check_sync(nowhere, nowhere, SyncFilter(), {})


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Exact lips, without the shapes that only a landmarker names, and audio, 10 s each."""
    found = []
    for seed in range(6):
        speech = make_speech(seed, "train", make_voice(seed), samples_for(FRAMES))
        truth = truths(Identity.sample(seed), face_tracks(seed, speech, FRAMES))
        zero = np.zeros(FRAMES)
        jaw = truth.get("jaw_open", zero)
        lips = Readings(truth["mouth_open"], truth["lip_width"], zero, jaw, zero, zero, zero, zero == 0)
        found.append((lips, speech.wave))
    return found


def judged(lips: Readings, wave: np.ndarray) -> SyncVerdict:
    found = lag_curve(lips, wave)
    assert found is not None
    return verdict(found, 0.1)


def test_speech_that_is_made_of_its_lips_is_in_sync_with_them_alone(clips: list[Clip]) -> None:
    for index, (lips, wave) in enumerate(clips):
        assert judged(lips, wave).evidence > 1.3
        for ms in (-1600, -500, -200, 200, 500, 1600):
            by = 16 * abs(ms)
            moved = np.pad(wave, (by, 0))[: len(wave)] if ms >= 0 else np.pad(wave[by:], (0, by))
            said = judged(lips, moved)
            assert said.evidence < 0 and abs(1000 * said.offset - ms) <= 40, (index, ms, said)
        assert judged(lips, clips[index - 1][1]).evidence < 0


def test_nothing_to_compare_gives_no_curve(clips: list[Clip]) -> None:
    lips, wave = clips[0]
    zero = np.zeros(FRAMES)
    still = Readings(zero, zero, zero, zero, zero, zero, zero, zero == 0)
    assert lag_curve(still, wave) is None and lag_curve(lips, np.zeros_like(wave)) is None
    short = Readings(*(np.ones(20) * np.arange(20) for _ in range(7)), np.ones(20, bool))
    assert lag_curve(short, wave[: samples_for(20)]) is None


def test_the_slow_part_goes_and_the_fast_stays() -> None:
    time = np.arange(150) * STEP_S
    slow, fast = np.sin(2 * np.pi * 0.2 * time), np.sin(2 * np.pi * 5 * time)
    left = without_slow_part((slow + fast)[:, None])[25:-25, 0]
    assert np.abs(left - fast[25:-25]).max() < 0.1


def test_correlations_at_all_lags_are_those_at_each() -> None:
    rng = np.random.default_rng(0)
    for steps in (60, 250):
        lips, audio = rng.standard_normal((2, steps, 3)) + 2.0
        found = lag_correlations(lips, audio)
        for lag in (-40, -7, 0, 3, 25):
            a, b = lips[max(0, -lag) :][: steps - abs(lag)], audio[max(0, lag) :][: steps - abs(lag)]
            by_hand = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(3)]
            assert np.allclose(found[lag + len(LAGS) // 2], by_hand)


def test_the_fit_fits_the_tracks(clips: list[Clip]) -> None:
    fit = sync_fit()
    bands = audio_tracks(clips[0][1], 101).shape[1]
    assert (
        fit.lips.shape == (55, 4)
        and fit.audio.shape == (5 * bands, 4)
        and fit.weights.sum() == pytest.approx(1, abs=1e-3)
    )
    assert fit.mean > 3 * fit.spread > 0 and fit.noise > 0
