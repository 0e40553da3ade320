"""The command line, in this process: exit codes, one line on stderr, no file left behind by a failure."""

from __future__ import annotations

import argparse
import errno
import json
import shutil
import subprocess
import sys
import threading
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import df_infer.pipeline
from df_infer import cli
from df_infer.config import GenerateConfig, RolloutConfig
from df_infer.pipeline import Pipeline
from df_infer.rollout import _warn_once
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.media import read_audio, read_video, write_wav
from df_models.model.adapter import Adapter, LowRank, metadata_of, settings_of, weights_hash
from df_models.settings import load_config


@pytest.fixture(autouse=True)
def _tiny_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = random_tiny_vae()
    monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda name: vae)


def run(files, out: Path, *more: str, **replaced: Path) -> int:
    named = {"run": files.run, "image": files.image, "audio": files.audio, **replaced}
    options = [part for name, path in named.items() for part in (f"--{name}", str(path))]
    return cli.main(["generate", *options, "--out", str(out), "--quiet", *more])


def test_writes_a_video_with_the_audio(files, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.mp4"
    assert run(files, out) == 0
    frames, fps = read_video(out)
    assert len(frames) == 25 and frames.shape[1:] == (16, 16, 3) and fps == 25
    audio, given = read_audio(out), read_audio(files.audio)
    assert abs(len(audio) - len(given)) <= 2048
    assert 0.5 < np.abs(audio).mean() / np.abs(given).mean() < 2
    assert "25 frames" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "beside"), [([], True), (["--profile", "trace.json"], False), (["--chunk", "null"], False)]
)
def test_a_core_that_is_idle_decodes_beside_denoising(
    files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denoised_in: set[int], options: list[str], beside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def core_beside(device: torch.device, threads: int | None) -> bool:
        asked.append((device.type, threads))
        return True

    monkeypatch.setattr("df_infer.threads.core_beside", core_beside)
    assert run(files, tmp_path / "out.mp4", "--frames", "9", *options) == 0
    assert (threading.get_ident() not in denoised_in) == beside
    assert asked == ([("cpu", None)] if beside else [])


@pytest.mark.parametrize("many", [False, True])
def test_no_thread_is_left_when_a_generation_fails(
    files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """A process that ends while a thread of it computes may abort."""
    monkeypatch.setattr("df_infer.threads.core_beside", lambda device, threads: True)
    beside = []

    def interrupted(*_: object) -> None:
        beside.append(any(thread.name.startswith("one-ahead") for thread in threading.enumerate()))
        raise KeyboardInterrupt

    monkeypatch.setattr("df_models.media.video.VideoWriter.add", interrupted)
    out = tmp_path / "out.mp4"
    (tmp_path / "list.csv").write_text(f"image,audio,out\n{files.image},{files.audio},a.mp4\n")
    manifest = ["generate", "--run", str(files.run), "--manifest", str(tmp_path / "list.csv"), "--out", str(tmp_path)]
    assert (cli.main([*manifest, "--quiet"]) if many else run(files, out)) == 130
    assert beside == [True]
    assert not any(thread.name.startswith("one-ahead") for thread in threading.enumerate())


def test_the_profile_tells_where_the_time_goes(files, tmp_path: Path, capsys) -> None:
    trace = tmp_path / "trace.json"
    assert run(files, tmp_path / "out.mp4", "--frames", "9", "--profile", str(trace)) == 0
    told = capsys.readouterr().out
    stages = [line for line in told.splitlines() if " ms  " in line]
    times = {line.split("ms")[1].split("(")[0].strip(): int(line.split("(")[1].split()[0]) for line in stages}
    assert times.pop("hear") and times == {"denoise": 2 * 3, "decode": 3, "write into the cache": 3}
    assert json.loads(trace.read_text())
    assert run(files, tmp_path / "out.mp4", "--frames", "133", "--profile", str(trace)) == 2
    assert "--frames 129" in capsys.readouterr().err


def test_a_milestone_is_taken_in_place_of_the_final_model(files, tmp_path: Path, monkeypatch, capsys) -> None:
    copy = tmp_path / "run"
    shutil.copytree(files.run, copy)
    (copy / "models").mkdir()
    (copy / "model").rename(copy / "models" / "step-30")
    taken: list[Path] = []
    load = DualForce.from_pretrained
    monkeypatch.setattr(DualForce, "from_pretrained", lambda path: taken.append(path) or load(path))
    assert run(files, tmp_path / "out.mp4", "--frames", "5", "--checkpoint", "30", run=copy) == 0
    assert taken == [copy / "models" / "step-30"]
    capsys.readouterr()
    assert run(files, tmp_path / "out.mp4", "--checkpoint", "31", run=copy) == 2
    assert "no milestone of step 31; there are those of steps 30" in capsys.readouterr().err


def test_an_adapter_is_added_to_the_model_it_was_trained_on(files, tmp_path: Path, capsys) -> None:
    """Written here by hand: nothing of peft is needed."""
    layer, adapted = "video.blocks.0.ffn.0", tmp_path / "run"
    shutil.copytree(files.run, adapted)
    model = DualForce.from_pretrained(files.run / "model")
    weight = model.get_submodule(layer).weight
    torch.manual_seed(0)
    pair = LowRank(torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2))
    settings = {**settings_of(model.config), "speech_level": -31.0}
    adapter = Adapter({layer: pair}, 1.5, weights_hash(files.run / "model"), settings)
    with torch.no_grad():
        weight.add_(1.5 * (pair.b_OR @ pair.a_RI))
    model.save_pretrained(adapted / "model")
    folder = adapted / "model" / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 3}))
    names = {"lora_A": pair.a_RI, "lora_B": pair.b_OR}
    tensors = {f"base_model.model.{layer}.{part}.weight": value for part, value in names.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata=metadata_of(adapter))

    pipeline = Pipeline.from_run(files.run, "cpu", "float32", adapter=adapted)
    wanted = model.state_dict()
    assert all(torch.equal(wanted[name], value) for name, value in pipeline.model.state_dict().items())
    assert pipeline.model.config.speech_level == -31.0
    assert run(files, tmp_path / "out.mp4", "--frames", "5", "--adapter", str(folder)) == 0
    capsys.readouterr()
    assert run(files, tmp_path / "no.mp4", "--frames", "5", "--adapter", str(folder), run=adapted) == 2
    assert "the adapter was trained on another model" in capsys.readouterr().err
    assert run(files, tmp_path / "no.mp4", "--frames", "5", "--adapter", str(files.run)) == 2
    assert "is no adapter" in capsys.readouterr().err
    assert not (tmp_path / "no.mp4").exists()


def test_the_latency_that_is_told_falls_with_the_audio_that_is_heard_ahead(
    files, tmp_path: Path, capsys, caplog
) -> None:
    for flags, told in (((), "audio_future 0.16 s"), (("--audio-future", "1"), "audio_future 0.04 s")):
        assert run(files, tmp_path / "out.mp4", "--frames", "5", *flags) == 0
        assert told in capsys.readouterr().out
    assert not [record for record in caplog.records if "audio_future" in record.message], "the run does not say"
    for share in (0, 0.5):
        other = tmp_path / f"learnt-{share}"
        shutil.copytree(files.run, other)
        with (other / "config.yaml").open("a") as file:
            file.write(f"objective: {{shorten_audio: {share}}}\n")
        caplog.clear()
        _warn_once.cache_clear()
        assert run(files, tmp_path / "out.mp4", "--frames", "5", "--audio-future", "1", run=other) == 0
        assert any("always hears 4 slots ahead" in record.message for record in caplog.records) == (share == 0)
    assert run(files, tmp_path / "out.mp4", "--audio-future", "5") == 2
    assert "hears 4 slots ahead" in capsys.readouterr().err


def test_audio_shorter_than_the_video_is_padded(files, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", np.ones(640 * 2) * 0.1)
    assert run(files, tmp_path / "out.mp4", audio=tmp_path / "short.wav") == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == 5
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 640 * 5


def test_the_video_carries_the_inputs_own_audio_in_time(files, tmp_path: Path) -> None:
    """48 kHz stereo with a click on either side comes out so, each click in its place, cut to the video."""
    rate, clicks = 48_000, (0.30, 0.62)
    stereo = 0.02 * np.random.default_rng(0).normal(size=(2 * rate, 2))
    for channel, at in enumerate(clicks):
        stereo[round(at * rate) : round(at * rate) + 48, channel] = 0.9
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((stereo * 32767).astype("<i2").tobytes())
    assert run(files, tmp_path / "out.mp4", "--frames", "17", audio=tmp_path / "in.wav") == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = list(container.decode(audio=0))
    assert (found[0].sample_rate, found[0].layout.name) == (rate, "stereo")
    out = np.concatenate([frame.to_ndarray() for frame in found], axis=1)
    begin = round(float(found[0].time) * rate)
    assert 17 / 25 * rate <= out.shape[1] + begin <= 17 / 25 * rate + 2048
    for channel, at in enumerate(clicks):
        assert abs(begin + int(np.abs(out[channel]).argmax()) - (at + 0.0005) * rate) < 0.002 * rate


def test_quiet_speech_is_heard_louder_unless_told_otherwise(files, tmp_path: Path, monkeypatch, caplog) -> None:
    speech = 0.2 * np.random.default_rng(0).normal(size=16_000) * (np.arange(16_000) % 8_000 < 5_000)
    write_wav(tmp_path / "quiet.wav", 0.02 * speech)
    heard = []
    original = df_infer.pipeline.audio_pieces

    def spy(encoder, wave_N, count, pool):
        heard.append(np.abs(wave_N).max())
        return original(encoder, wave_N, count, pool)

    monkeypatch.setattr("df_infer.pipeline.audio_pieces", spy)
    assert run(files, tmp_path / "a.mp4", "--frames", "5", audio=tmp_path / "quiet.wav") == 0
    assert "dB louder" in caplog.text and np.abs(read_audio(tmp_path / "a.mp4")).max() < 0.05
    assert run(files, tmp_path / "b.mp4", "--frames", "5", "--keep-level", audio=tmp_path / "quiet.wav") == 0
    assert heard[0] > 10 * heard[1]


def test_options_reach_the_rollout(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    original = Pipeline.stream

    def spy(self, image, wave, **arguments):
        seen.update(arguments)
        return original(self, image, wave, **arguments)

    monkeypatch.setattr(Pipeline, "stream", spy)
    options = "--frames 5 --seed 7 --steps 3 --start generate --struct-start noise --window 2 --sinks 0 --solver heun"
    assert run(files, tmp_path / "out.mp4", *options.split()) == 0
    rollout = seen["rollout"]
    assert (seen["num_frames"], seen["seed"]) == (5, 7)
    assert (rollout.steps, rollout.start, rollout.struct_start) == (3, "generate", "noise")
    assert (rollout.window, rollout.sinks, rollout.solver) == (2, 0, "heun")


def test_every_setting_of_a_rollout_has_a_flag_with_its_meaning(files, tmp_path: Path, capsys) -> None:
    values = {
        "structure_steps": 4,
        "audio_future": 2,
        "shift": 2.5,
        "structure_shift": 1.5,
        "chunk": 2,
        "steps": 5,
        "window": 6,
        "sinks": 0,
    }
    values |= {"solver": "heun", "start": "generate", "struct_start": "noise", "context_noise": 0.02}
    values |= {"audio_guidance": 2.0, "text_guidance": 0.5, "structure_guidance": 3.0}
    values |= {"structure_from": "runs/structure", "blinks": 20.0}
    assert set(values) == set(RolloutConfig.model_fields)
    flags = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert run(files, tmp_path / "out.mp4", *flags, "--print-config") == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert load_config(GenerateConfig, printed) == GenerateConfig(rollout=RolloutConfig(**values))
    with pytest.raises(SystemExit):
        cli.main(["generate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in RolloutConfig.model_fields.items():
        assert f"--{name.replace('_', '-')} " in shown and " ".join(str(field.description).split()[:4]) in shown


def test_flags_change_only_what_they_name(files, tmp_path: Path, capsys) -> None:
    assert run(files, tmp_path / "out.mp4", "--structure-steps", "null", "--print-config") == 0
    assert "steps: 2\n" in capsys.readouterr().out, "the run's own"


def test_writes_the_motion(files, tmp_path: Path) -> None:
    assert run(files, tmp_path / "out.mp4", "--frames", "9", "--structure-out", str(tmp_path / "s.npz")) == 0
    with np.load(tmp_path / "s.npz") as data:
        assert data["structure"].shape == (9, 70) and data["names"][64] == "yaw" and data["fps"] == 25


def expect_error(capsys, code: int, message: str, folder: Path, expected: int = 2) -> None:
    errors = capsys.readouterr().err
    assert code == expected
    assert errors.startswith("df-infer: error: ") and errors.count("\n") == 1 and message in errors
    assert not [p for p in folder.iterdir() if p.suffix in (".mp4", ".npz") or p.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image", None, "no such file"),
        ("audio", None, "no such file"),
        ("image", b"not an image", "not an image"),
        ("audio", b"not audio at all", "no audio"),
        ("run", None, "no such run"),
        ("run", b"", "no run and no model"),
    ],
)
def test_a_wrong_input_is_one_line(files, tmp_path: Path, capsys, name: str, content, message: str) -> None:
    wrong = tmp_path / "given"
    if name == "run" and content is not None:
        wrong.mkdir()
    elif content is not None:
        wrong.write_bytes(content)
    expect_error(capsys, run(files, tmp_path / "out.mp4", **{name: wrong}), message, tmp_path)


def test_a_directory_is_no_image(files, tmp_path: Path, capsys) -> None:
    expect_error(capsys, run(files, tmp_path / "out.mp4", image=tmp_path), "is a directory, not a file", tmp_path)


def test_a_detector_is_refused_where_no_face_is_looked_for(files, tmp_path: Path, capsys) -> None:
    code = run(files, tmp_path / "out.mp4", "--face-detector", str(files.image))
    expect_error(capsys, code, "--face-detector: this model was trained without face crops", tmp_path)


def test_an_image_has_no_audio(files, tmp_path: Path, capsys) -> None:
    expect_error(capsys, run(files, tmp_path / "out.mp4", audio=files.image), "no audio", tmp_path)


@pytest.mark.parametrize(
    ("out", "message"), [("missing/out.mp4", "does not exist"), ("out.avi", "must end in"), ("d.mp4", "a directory")]
)
def test_a_wrong_output_is_one_line(files, tmp_path: Path, capsys, out: str, message: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "d.mp4").mkdir()
    target = tmp_path / out if out == "d.mp4" else folder / out
    expect_error(capsys, run(files, target), message, folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "10"], "1 + 4 n"),
        (["--window", "0"], "--window: input should be greater than or equal to 1, got 0"),
        (["--shift", "abc"], "--shift: input"),
        (["--device", "gpu"], "unknown device"),
    ],
)
def test_a_wrong_option_is_one_line(files, tmp_path: Path, capsys, options: list[str], message: str) -> None:
    expect_error(capsys, run(files, tmp_path / "out.mp4", *options), message, tmp_path)


def test_a_full_disk_leaves_nothing_behind(files, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("df_models.media.video._AudioWriter.finish", full)
    expect_error(capsys, run(files, tmp_path / "out.mp4"), "disk is full", tmp_path, expected=3)


def test_an_interrupted_run_leaves_nothing_behind(files, tmp_path: Path, capsys, monkeypatch) -> None:
    def stop(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("df_models.media.video._AudioWriter.finish", stop)
    expect_error(capsys, run(files, tmp_path / "out.mp4"), "interrupted", tmp_path, expected=130)


def test_an_old_result_survives_a_failure(files, tmp_path: Path, capsys) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    assert run(files, tmp_path / "out.mp4", "--frames", "10") == 2
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


def test_every_option_tells_its_default_and_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # what argparse fits its help to, less two
    parsers = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert set(parsers) == {"generate", "serve"}
    needed = {"help", "print_config", "run", "image", "audio", "out", "manifest"}
    switches = {"cropped", "keep_level", "quiet", "compile"}
    for parser in parsers.values():
        for action in parser._actions:
            if action.dest not in needed | switches:
                assert "default: " in str(action.help), action.option_strings
        told = parser.format_help()
        assert "docs/serving.md" in told and max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_and_version(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert ("df-infer generate --run" in shown) if "--help" in arguments else ("0.1" in shown)


def test_neither_help_nor_a_missing_run_waits_for_torch() -> None:
    code = (
        "import sys\nfrom df_infer.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "code = main(['generate', '--run', 'none', '--image', 'i', '--audio', 'a', '--out', 'o.mp4'])\n"
        "sys.exit(code != 2 or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "error: no such run: none" in done.stderr
