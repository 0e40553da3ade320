"""Lists of clips: several at once, each as alone; gone on with; one line per failure."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from df_infer import cli
from df_infer.many.manifest import read_manifest
from df_infer.many.together import Wanted, stream_together
from df_infer.pipeline import Pipeline
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_image, read_video, write_wav
from df_models.media.video import VideoWriter


@pytest.fixture(autouse=True)
def _tiny_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = random_tiny_vae()
    monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda name: vae)


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [({}, (17, 5, 29)), ({"audio_guidance": 2.0, "audio_future": 2}, (5, 13)), ({"chunk": 2}, (13, 13))],
)
def test_clips_made_together_are_those_made_alone(files, changes: dict, lengths: tuple[int, ...]) -> None:
    pipeline = Pipeline.from_run(files.run, "cpu", "float32")
    rollout = pipeline.rollout.model_copy(update=changes)
    rng = np.random.default_rng(0)
    image = read_image(files.image)
    images = [np.roll(image, 10 * place, axis=1) for place in range(len(lengths))]
    waves = [rng.normal(scale=0.1, size=640 * length - 300).astype(np.float32) for length in lengths]
    wanted = [Wanted(pipeline.encoded(i), w, n, 7 + n) for i, w, n in zip(images, waves, lengths)]
    together = list(stream_together(pipeline, wanted, rollout))
    assert len(together) == 1 + (max(lengths) - 1) // 4
    for place, (one, wave, length) in enumerate(zip(images, waves, lengths)):
        clips = list(pipeline.stream(one, wave, rollout=rollout, seed=7 + length, keep_level=True))
        found = [step[place] for step in together if step[place] is not None]
        assert [len(c.frames) for c in found] == [len(c.frames) for c in clips]  # pyright: ignore
        for a, b in zip(found, clips):
            assert a is not None
            np.testing.assert_allclose(a.structure, b.structure, atol=2e-4)
            assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= 1


def test_clips_made_together_are_decoded_beside_denoising(files, denoised_in: set[int]) -> None:
    pipeline = Pipeline.from_run(files.run, "cpu", "float32")
    portrait = pipeline.encoded(read_image(files.image))
    rng = np.random.default_rng(0)
    wanted = [Wanted(portrait, rng.normal(scale=0.1, size=640 * n).astype(np.float32), n, n) for n in (5, 13)]
    plain = list(stream_together(pipeline, wanted, pipeline.rollout))
    denoised_in.clear()
    beside = list(stream_together(dataclasses.replace(pipeline, beside=True), wanted, pipeline.rollout))
    assert threading.get_ident() not in denoised_in and len(denoised_in) == 1
    for one, other in zip(plain, beside, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None and b is None) or (a is not None and b is not None and (a.frames == b.frames).all())


def listed(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def generate(files, manifest: Path, out: Path, *more: str) -> int:
    options = ["--run", str(files.run), "--manifest", str(manifest), "--out", str(out), "--quiet"]
    return cli.main(["generate", *options, *more])


def test_a_list_is_made_gone_on_with_and_tells_its_failures(files, tmp_path: Path, capsys) -> None:
    write_wav(tmp_path / "short.wav", np.random.default_rng(0).normal(scale=0.1, size=640 * 5))
    manifest = listed(
        tmp_path,
        f"image,audio,out,seed\n{files.image},short.wav,a.mp4,1\n{files.image},none.wav,b.mp4,\n"
        f"{files.image},{files.audio},sub/c.mp4,\n",
    )
    assert generate(files, manifest, tmp_path / "out", "--together", "2") == 1
    told = capsys.readouterr().out
    assert "b.mp4: failed: no such file" in told and "2 clips made, 0 were there, 1 failed" in told
    assert [len(read_video(tmp_path / "out" / name)[0]) for name in ("a.mp4", "sub/c.mp4")] == [5, 25]
    stamp = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    write_wav(tmp_path / "none.wav", np.random.default_rng(1).normal(scale=0.1, size=640 * 5))
    assert generate(files, manifest, tmp_path / "out") == 0
    assert "1 clips made, 2 were there, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == stamp
    assert generate(files, manifest, tmp_path / "out", "--steps", "1") == 0
    assert "3 clips made, 0 were there" in capsys.readouterr().out, "other settings are other clips"
    lines = [json.loads(line) for line in (tmp_path / "out" / "generated.jsonl").read_text().splitlines()]
    assert [line["out"] for line in lines[:2]] == ["b.mp4", "a.mp4"] and "failed" in lines[0]
    record = tmp_path / "out" / "generated.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]) + '{"out": "sub/c.m')  # a full disk
    assert generate(files, manifest, tmp_path / "out", "--steps", "1") == 0
    assert "1 clips made, 2 were there" in capsys.readouterr().out
    assert generate(files, manifest, tmp_path / "out", "--steps", "1") == 0
    assert "0 clips made, 3 were there" in capsys.readouterr().out, "what was recorded behind the damaged line is read"


def test_a_clip_that_cannot_be_written_fails_alone(files, tmp_path: Path, capsys) -> None:
    write_wav(tmp_path / "s.wav", np.random.default_rng(0).normal(scale=0.1, size=640 * 5))
    (tmp_path / "out" / "a.mp4").mkdir(parents=True)
    manifest = listed(tmp_path, f"image,audio,out\n{files.image},s.wav,a.mp4\n{files.image},s.wav,b.mp4\n")
    assert generate(files, manifest, tmp_path / "out", "--together", "2") == 1
    assert "a.mp4: failed" in capsys.readouterr().out and (tmp_path / "out" / "b.mp4").is_file()


def test_an_interrupted_list_says_what_is_there(files, tmp_path: Path, monkeypatch, capsys) -> None:
    write_wav(tmp_path / "s.wav", np.random.default_rng(0).normal(scale=0.1, size=640 * 5))
    rows = "".join(f"{files.image},s.wav,{name}.mp4\n" for name in "abc")
    manifest, add = listed(tmp_path, f"image,audio,out\n{rows}"), VideoWriter.add

    def interrupted(self: VideoWriter, *given) -> None:
        if Path(self._path).name == "b.mp4":
            raise KeyboardInterrupt
        add(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "add", interrupted)
        assert generate(files, manifest, tmp_path / "out") == 130
    assert "1 clips made, 0 were there, 0 failed" in capsys.readouterr().err
    assert generate(files, manifest, tmp_path / "out") == 0
    assert "2 clips made, 1 were there" in capsys.readouterr().out


def test_a_clip_that_cannot_be_finished_fails_alone(files, tmp_path: Path, monkeypatch, capsys) -> None:
    write_wav(tmp_path / "s.wav", np.random.default_rng(0).normal(scale=0.1, size=640 * 5))
    names = ("a", "b", "c")
    rows = "".join(f"{files.image},s.wav,{name}.mp4\n" for name in names)
    finish = VideoWriter._finish_unless_broken

    def full(self: VideoWriter, kind, *rest) -> None:
        if Path(self._path).name == "b.mp4" and kind is None:
            raise OSError(28, "No space left on device")
        finish(self, kind, *rest)

    monkeypatch.setattr(VideoWriter, "_finish_unless_broken", full)
    manifest = listed(tmp_path, f"image,audio,out\n{rows}")
    assert generate(files, manifest, tmp_path / "out", "--together", "3") == 1
    assert "b.mp4: failed" in capsys.readouterr().out
    assert [(tmp_path / "out" / f"{name}.mp4").exists() for name in names] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "give a .csv"),
        ("a.csv", "image,audio,out\n", "lists no clip"),
        ("a.csv", "image,audio,out\nx,y,../a.mp4\n", "a.mp4"),
        ("a.csv", "image,audio,out\nx,y,/etc/a.mp4\n", "a.mp4"),
        ("a.csv", "image,audio,out\nx,y,a.avi\n", "must end in .mp4"),
        ("a.csv", "image,audio,out\nx,y,a.mp4\nx,z,./a.mp4\n", "also that of line 2"),
        ("a.csv", "image,sound,out\nx,y,a.mp4\n", "sound"),
        ("a.csv", f'image,audio,out\nx,y,"{"a" * 140_000}', "is a quote left open"),
        ("a.jsonl", '{"image": "x"', "line 1 is no JSON"),
        ("a.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("a.jsonl", "[1]", "no JSON object"),
        ("a.jsonl", '{"image": "x", "audio": "y", "out": "a.mp4", "seed": -1}', "seed"),
    ],
)
def test_a_list_that_is_wrong_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_manifest(listed(tmp_path, text, name), tmp_path / "out")


def test_options_of_one_clip_do_not_go_with_a_list(files, tmp_path: Path, capsys) -> None:
    manifest = listed(tmp_path, "image,audio,out\nx,y,a.mp4\n")
    for option, value in (("--image", "x.png"), ("--frames", "5"), ("--drive", "m.npz"), ("--seed", "3")):
        assert generate(files, manifest, tmp_path / "out", option, value) == 2
        assert option in capsys.readouterr().err
    assert generate(files, manifest, tmp_path / "out", "--chunk", "null", "--window", "9") == 2
    assert "one by one" in capsys.readouterr().err
    assert cli.main(["generate", "--run", str(files.run), "--together", "2"]) == 2
    assert not (tmp_path / "out" / "a.mp4").exists()
