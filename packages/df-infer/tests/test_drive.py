"""Structure that is given at generation: whole or in named fields, from a file, in pieces, or from another model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from df_infer.cli import main
from df_infer.config import RolloutChanges, RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.sampling.drive import Drive
from df_models import DualForce
from df_models.errors import UserError
from df_models.motion import Motion, motion_slots, read_motion, write_motion
from df_models.structure import SYNTHETIC_70, StructureLayout
from df_models.time import from_slots

REFERENCE = torch.full((2, 16, 2, 2), 0.9)
AUDIO = torch.arange(5.0).view(1, 5, 1, 1).expand(2, 5, 4, 3) + 1
TRACK = torch.arange(2 * 5 * 4 * 6.0).view(2, 5, 4, 6)
CONFIG = RolloutConfig(steps=3, structure_steps=2, start="generate")
HEAD = ("pitch", "yaw", "roll")


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_structure_given_whole_is_clean_in_every_call_and_costs_none(spy, solver: str, chunk: int) -> None:
    config = RolloutChanges(solver=solver, chunk=chunk, context_noise=0.3, audio_guidance=2.0).applied_to(CONFIG)
    generate_latents(spy, AUDIO, REFERENCE, config=config)
    without = len(spy.calls)
    spy.calls.clear()
    out = generate_latents(spy, AUDIO, REFERENCE, config=config, drive=Drive(TRACK))
    assert len(spy.calls) == without
    given = TRACK / 2
    torch.testing.assert_close(out.structure, given, rtol=0, atol=0)
    torch.testing.assert_close(out.video, torch.full((2, 5, 16, 2, 2), spy.clean))
    for call in spy.calls:
        frames = slice(call.frame, call.frame + call.structure.shape[1])
        assert torch.equal(call.structure, torch.cat([given[:, frames]] * 2)) and not call.sigma_structure.any()
        assert call.known is None
    assert [call.sigma_video.unique().item() for call in spy.calls if call.write] == pytest.approx(
        [0.3] * -(-5 // chunk)
    )


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_given_fields_are_clean_in_frames_that_stay_noisy(spy, solver: str) -> None:
    config = RolloutChanges(solver=solver, context_noise=0.3).applied_to(CONFIG)
    generate_latents(spy, AUDIO, REFERENCE, config=config)
    free = list(spy.calls)
    spy.calls.clear()
    out = generate_latents(spy, AUDIO, REFERENCE, config=config, drive=Drive(TRACK, ("a",)))
    torch.testing.assert_close(out.structure[..., :2], TRACK[..., :2] / 2, rtol=0, atol=0)
    torch.testing.assert_close(out.structure[..., 2:], torch.full((2, 5, 4, 4), spy.clean))
    assert len(spy.calls) == len(free)
    for call, before in zip(spy.calls, free):
        assert torch.equal(call.structure[..., :2], TRACK[:, call.frame : call.frame + 1, :, :2] / 2)
        assert torch.equal(call.sigma_structure, before.sigma_structure)
        assert torch.equal(call.structure[..., 2:], before.structure[..., 2:]) or call.frame > 0
        assert call.known is not None and call.known[..., :2].all() and not call.known[..., 2:].any()


def test_pieces_of_any_length_give_what_the_whole_track_gives(told, model, inputs) -> None:
    driven = told(structure_given="sometimes")
    track = torch.randn(2, 5, 4, 70, generator=torch.Generator().manual_seed(5))
    inputs = inputs._replace(audio=inputs.audio[:, :5])
    config = RolloutConfig(steps=1, window=3, start="generate")
    drive = Drive(iter(track.split([1, 3, 1], dim=1)))
    whole = generate_latents(driven, *inputs, config=config, drive=Drive(track))
    pieces = generate_latents(driven, *inputs, config=config, drive=drive)
    assert torch.equal(whole.video, pieces.video) and torch.equal(whole.structure, pieces.structure)
    other = generate_latents(driven, *inputs, config=config, drive=Drive(-track))
    assert (whole.video - other.video).abs().max() > 1e-3, "the motion must matter to the video"


def test_cached_generation_with_given_structure_equals_the_full_sequence(told, model, inputs) -> None:
    """One Euler step from noise, frame by frame: each video frame is what the whole clip's forward says of it."""
    driven = told(structure_given="sometimes")
    track = torch.randn(2, 4, 4, 70, generator=torch.Generator().manual_seed(6))
    audio = inputs.audio[:, :4]
    config = RolloutConfig(steps=1, window=8, start="generate")
    out = generate_latents(driven, audio, *inputs[1:], config=config, drive=Drive(track), seed=3)
    from df_infer.sampling.noise import FrameNoise

    noise = FrameNoise(3, [0, 1]).draw(3, 1, "video", (16, 2, 2))
    clip = torch.cat([out.video[:, :3], noise], dim=1)
    sigma = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(2, 4)
    structure = driven.normalize_structure(track)
    with torch.no_grad():
        velocity = driven(clip, structure, audio, sigma, torch.zeros(2, 4), *inputs[1:])
    torch.testing.assert_close(out.video[:, 3], noise[:, 0] - velocity.video[:, 3], rtol=1e-4, atol=1e-5)


def test_what_a_model_did_not_learn_to_be_given(told, model, inputs, caplog) -> None:
    track = torch.zeros(2, 17, 4, 70)
    short = [value[:, :2] if index == 0 else value for index, value in enumerate(inputs)]
    config = RolloutConfig(steps=1)
    generate_latents(model, *short, config=config, drive=Drive(track[:, :2]))
    assert "never given all of its structure" in caplog.text
    for changes, fields, message in (
        ({}, HEAD, "did not learn to be given pitch, yaw, roll alone; .* are: none"),
        ({"structure_known": True, "given_fields": (HEAD,)}, ("pitch",), "learn to be given pitch alone.*pitch.yaw"),
        ({"structure_known": True, "given_fields": (HEAD,)}, ("pich",), "did you mean 'pitch'"),
        ({"structure_given": "always"}, HEAD, "give all fields"),
    ):
        with pytest.raises(UserError, match=message):
            generate_latents(told(**changes), *inputs, config=config, drive=Drive(track, fields))
    condition = told(structure_given="always")
    with pytest.raises(UserError, match=r"makes none.*--structure-from RUN"):
        generate_latents(condition, *short, config=config)
    generate_latents(condition, *short, config=config, drive=Drive(track[:, :2]))


@pytest.mark.parametrize(
    ("drive", "message"),
    [
        (Drive(TRACK[:, :4]), "has 4 latent frames, the audio 5"),
        (Drive([TRACK[:, :2], TRACK[:, 2:4]]), "ends after 4 latent frames"),
        (Drive(TRACK[:1]), "2 samples of 6 entries"),
        (Drive(TRACK[..., :5]), "2 samples of 6 entries"),
        (Drive([TRACK[0]]), "the given structure must be"),
    ],
)
def test_a_track_that_does_not_fit_is_told(spy, drive: Drive, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate_latents(spy, AUDIO, REFERENCE, config=CONFIG, drive=drive)


@pytest.fixture(scope="module")
def driven_run(told, model, files, tmp_path_factory):
    """The run of `files` whose model learnt to be given all structure, and the head's pose."""
    folder = tmp_path_factory.mktemp("driven")
    told(structure_given="sometimes", structure_known=True, given_fields=(HEAD,)).save_pretrained(folder / "model")
    (folder / "config.yaml").write_text("rollout: {steps: 1, window: 3}\n")
    return folder


def generate(run, files, out, *more) -> int:
    inputs = ["--run", str(run), "--image", str(files.image), "--audio", str(files.audio), "--frames", "9"]
    return main(["generate", *inputs, "--device", "cpu", "--out", str(out), "--quiet", *more])


def test_the_command_takes_a_motion_file_and_fields_of_it(driven_run, files, tmp_path, capsys) -> None:
    generator = np.random.default_rng(0)
    layout = StructureLayout.of(SYNTHETIC_70, "synthetic")
    track = generator.normal(size=(11, 70)).astype(np.float32)
    write_motion(tmp_path / "track.npz", Motion(track, layout))
    drive = ["--drive", str(tmp_path / "track.npz"), "--structure-out", str(tmp_path / "out.npz")]
    assert generate(driven_run, files, tmp_path / "out.mp4", *drive) == 0
    assert "the structure was given: all of it" in capsys.readouterr().out
    np.testing.assert_allclose(read_motion(tmp_path / "out.npz").structure_PD, track[:9], atol=1e-5)
    assert generate(driven_run, files, tmp_path / "out.mp4", *drive, "--drive-fields", "pitch,yaw,roll") == 0
    assert "pitch, yaw, roll, from" in capsys.readouterr().out
    made = read_motion(tmp_path / "out.npz").structure_PD
    np.testing.assert_allclose(made[:, 63:66], track[:9, 63:66], atol=1e-5)
    assert np.abs(made[:, :63] - track[:9, :63]).max() > 0.1


def test_structure_that_another_run_makes_is_what_its_own_motion_file_gives(driven_run, files, tmp_path) -> None:
    maker = ["--structure-out", str(tmp_path / "made.npz")]
    assert generate(files.run, files, tmp_path / "a.mp4", *maker) == 0
    out = ["--structure-out", str(tmp_path / "out.npz")]
    assert generate(driven_run, files, tmp_path / "b.mp4", *out, "--structure-from", str(files.run)) == 0
    made, taken = (read_motion(tmp_path / name).structure_PD for name in ("made.npz", "out.npz"))
    np.testing.assert_allclose(taken, made, atol=1e-5)
    assert generate(driven_run, files, tmp_path / "c.mp4", "--drive", str(tmp_path / "made.npz")) == 0
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


def test_a_model_of_structure_alone_makes_it_for_another(model, driven_run, files, tmp_path) -> None:
    DualForce(replace(model.config, streams="structure")).eval().save_pretrained(tmp_path / "maker")
    out = ["--structure-out", str(tmp_path / "out.npz"), "--structure-from", str(tmp_path / "maker")]
    assert generate(driven_run, files, tmp_path / "out.mp4", *out) == 0
    assert read_motion(tmp_path / "out.npz").structure_PD.shape == (9, 70)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--drive", "SHORT"], "has 5 frames, 9 are to be generated"),
        (["--drive", "OTHER"], "somebody's"),
        (["--drive", "nowhere.npz"], "no such motion file"),
        (["--drive", "IMAGE"], "give a motion as .npz"),
        (["--drive-fields", "pitch"], "give one with --drive"),
        (["--drive", "SHORT", "--drive-fields", "pitch,,yaw"], "write names with commas"),
        (["--structure-from", "truth"], "have no true structure"),
        (["--structure-from", "others"], "structure_from=others, but speech and a portrait have no true structure"),
        (["--structure-from", "nowhere"], "rollout.structure_from=nowhere: there is no such run"),
    ],
)
def test_the_commands_mistakes_are_told_in_one_line(driven_run, files, tmp_path, capfd, more, message) -> None:
    own, other = (StructureLayout.of(SYNTHETIC_70, name) for name in ("synthetic", "somebody"))
    write_motion(tmp_path / "short.npz", Motion(np.zeros((5, 70), np.float32), own))
    write_motion(tmp_path / "other.npz", Motion(np.zeros((9, 70), np.float32), other))
    places = {"SHORT": tmp_path / "short.npz", "OTHER": tmp_path / "other.npz", "IMAGE": files.image}
    code = generate(driven_run, files, tmp_path / "out.mp4", *(str(places.get(word, word)) for word in more))
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("df-infer: ")]
    assert code == 2 and len(told) == 1 and message in told[0]
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("training", "more", "message"),
    [
        ("objective: {structure_tail: 0.0}", ["--structure-guidance", "2"], "structure_tail=0"),
        ("objective: {structure_tail: 0.0}", ["--drive", "TRACK"], None),  # clean structure is shown all the same
        ("task: distill", ["--structure-guidance", "2"], "is a distilled student"),
        ("task: distill", ["--drive", "TRACK"], "is a distilled student"),
        ("task: distill", ["--manifest", "LIST", "--structure-guidance", "2"], "is a distilled student"),
        ("objective: {structure_tail: some}", [], "must be a number, not 'some'"),
    ],
)
def test_what_a_runs_training_did_not_show_is_refused(
    driven_run, files, tmp_path, capfd, training: str, more: list[str], message: str | None
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(driven_run / "model")
    (run / "config.yaml").write_text(f"rollout: {{steps: 1, window: 3}}\n{training}\n")
    write_motion(tmp_path / "track.npz", Motion(np.zeros((9, 70), np.float32), driven_layout()))
    (tmp_path / "list.csv").write_text(f"image,audio,out\n{files.image},{files.audio},a.mp4\n")
    places = {"TRACK": tmp_path / "track.npz", "LIST": tmp_path / "list.csv"}
    words = [str(places.get(word, word)) for word in more]
    if "--manifest" in more:
        code = main(["generate", "--run", str(run), "--out", str(tmp_path / "out"), "--quiet", *words])
    else:
        code = generate(run, files, tmp_path / "out.mp4", *words)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("df-infer: ")]
    assert not list(tmp_path.glob("out/*.mp4"))
    if message is None:
        assert code == 0 and (tmp_path / "out.mp4").exists()
    else:
        assert code == 2 and len(told) == 1 and message in told[0], told
        assert not (tmp_path / "out.mp4").exists()


def driven_layout() -> StructureLayout:
    return StructureLayout.of(SYNTHETIC_70, "synthetic")


def damaged(path, **changes) -> None:
    layout = json.dumps(StructureLayout.of(SYNTHETIC_70, "synthetic").to_dict())
    arrays = {"structure": np.zeros((9, 70), np.float32), "fps": np.array(25), "layout": np.array(layout), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": np.array(30)}, "30 frames per second"),
        ({"structure": np.zeros((9, 69), np.float32)}, "do not fit its layout's 70"),
        ({"structure": np.full((9, 70), np.nan, np.float32)}, "finite numbers"),
        ({"structure": np.zeros(70, np.float32)}, "finite numbers"),
        ({"structure": np.array([{}], dtype=object)}, "is no motion file"),
        ({"layout": np.array("{}")}, "no layout of structure vectors"),
        ({"layout": np.array("{")}, "is no motion file"),
        ({"structure": None}, "is no motion file"),
    ],
)
def test_a_damaged_motion_file_is_told(tmp_path, changes, message) -> None:
    damaged(tmp_path / "motion.npz", **changes)
    with pytest.raises(UserError, match=message):
        read_motion(tmp_path / "motion.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(UserError, match="is no motion file"):
        read_motion(tmp_path / "text.npz")


def test_a_motion_goes_through_its_file_and_into_slots(model, tmp_path) -> None:
    motion = Motion(np.random.default_rng(1).normal(size=(11, 70)).astype(np.float32), model.config.structure_layout)
    write_motion(tmp_path / "motion.npz", motion)
    found = read_motion(tmp_path / "motion.npz")
    assert found.layout == motion.layout and np.array_equal(found.structure_PD, motion.structure_PD)
    slots = motion_slots(found, model.config, 9, "the track")
    assert slots.shape == (1, 3, 4, 70)
    assert np.array_equal(from_slots(slots)[0].numpy(), motion.structure_PD[:9])
