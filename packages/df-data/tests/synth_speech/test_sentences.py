from __future__ import annotations

import itertools

import pytest

from df_data.synth.seeding import rng_for
from df_data.synth.speech.phonemes import BILABIALS, PHONEMES, VOWELS
from df_data.synth.speech.sentences import lexicon, make_sentence, time_sentence


def test_inventory_holds_english_like_phonemes() -> None:
    assert 35 <= len(PHONEMES) <= 45
    assert {"P", "B", "M"} == BILABIALS
    for phoneme in PHONEMES.values():
        assert all(a < b for a, b in zip(phoneme.formants, phoneme.formants[1:])), phoneme.symbol
        assert 0.04 < phoneme.duration < 0.35


def test_open_vowels_have_high_first_formants() -> None:
    by_formant = sorted(VOWELS, key=lambda v: PHONEMES[v].formants[0])
    jaws = [PHONEMES[v].mouth.jaw for v in by_formant]
    assert sum(jaws[-4:]) / 4 > 0.8 and sum(jaws[:3]) / 3 < 0.35


def test_no_word_is_in_both_splits() -> None:
    sounds = {}
    for split in ("train", "val"):
        content, function = lexicon(split)
        assert len(content) > 300 and len(function) > 15
        sounds[split] = {w.text.replace(".", "-") for w in (*content, *function)}
    assert not sounds["train"] & sounds["val"]


def test_sentences_use_only_their_splits_words() -> None:
    for split in ("train", "val"):
        texts = {make_sentence(seed, split).text for seed in range(200)}
        assert len(texts) == 200
        known = {w.text for group in lexicon(split) for w in group}
        assert {word for text in texts for word in text.split(" ")} <= known


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split"):
        make_sentence(0, "test")  # type: ignore[arg-type]


def test_phones_follow_each_other_and_rate_scales() -> None:
    sentence = make_sentence(5, "train")
    slow, fast = (time_sentence(sentence, 1.5, rate, rng_for("test")) for rate in (0.9, 1.1))
    assert slow[0].start == 1.5
    assert all(a.end == b.start for a, b in itertools.pairwise(slow))
    spoken = [sum(p.end - p.start for p in phones if p.symbol != "SIL") for phones in (slow, fast)]
    assert spoken[0] / spoken[1] == pytest.approx(1.1 / 0.9)
    syllables = sum(len(w.syllables) for w in sentence.words)
    assert 2.5 < syllables / spoken[0] < 7.0
