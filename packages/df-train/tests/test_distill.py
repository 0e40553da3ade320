"""Few-step distillation: the path, the student's own clips, and what it is taught."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from df_data.reading import ShardReader
from df_data.reading.batch import Batch
from df_infer.config import RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.run_dir import Trained
from df_infer.sampling.noise import FrameNoise
from df_infer.sampling.schedule import make_schedule
from df_models import DualForce
from df_models.errors import UserError
from df_models.flow import HistoryConfig
from df_models.model.dualforce import Velocity
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.distill.objective import Distillation, check, stretched
from df_train.distill.path import advanced, draw_places, end_of, guess_of, levels_at, own_clip, placed, towards, upon
from df_train.noising import Shown, Streams, clean_streams, show
from df_train.objective import predict
from df_train.preflight import check_samples, preflight
from df_train.run import _latency_note, train

ROLLOUT = {"steps": 2, "shift": 2.5, "struct_start": "previous", "context_noise": 0.1, "window": 9, "sinks": 0}


@pytest.fixture(scope="module")
def model_of(tiny_model: dict[str, int], open_gates: Callable[[nn.Module], None]) -> Callable[[str], DualForce]:
    def model(streams: str) -> DualForce:
        torch.manual_seed(0)
        model = DualForce.from_preset("quickstart", **tiny_model, streams=streams)
        open_gates(model)
        if model.config.has_structure:
            model.set_structure_statistics(torch.full((70,), 3.0), torch.full((70,), 2.0))
        return model.eval()

    return model


@pytest.fixture(scope="module")
def model(model_of: Callable[[str], DualForce]) -> DualForce:
    return model_of("both")


@pytest.fixture
def batch(dataset: Path) -> Batch:
    batch = next(iter(ShardReader(dataset / "train", batch_size=3, seed=0)))
    return replace(batch, reference_frame=torch.tensor([0, -1, 0]))


def shown_of(batch: Batch, start_clean: float = 1.0) -> Shown:
    settings = ObjectiveConfig(drop_audio=0.0, start_clean=start_clean)
    clean = Streams(batch.video, batch.structure)
    return show(batch, clean, settings, HistoryConfig(mode="independent"), None, seed=1, step=2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("streams", "struct_start", "structure_steps", "chunk"),
    [
        ("both", "previous", None, 1),
        ("both", "previous", 1, 1),
        ("both", "noise", None, 1),
        ("both", "noise", 1, 1),
        ("video", "noise", None, 1),
        ("structure", "previous", None, 1),
        ("both", "previous", None, 2),
        ("both", "noise", 1, 2),
        ("both", "previous", None, 3),
        ("video", "noise", None, 2),
    ],
)
def test_a_clip_of_as_many_rounds_as_chunks_is_what_generation_gives(
    batch: Batch,
    model_of: Callable[[str], DualForce],
    streams: str,
    struct_start: str,
    structure_steps: int | None,
    chunk: int,
) -> None:
    model = model_of(streams)
    batch = replace(batch, reference_frame=torch.zeros(3, dtype=torch.long))
    changes = {"struct_start": struct_start, "structure_steps": structure_steps, "chunk": chunk}
    rollout = RolloutConfig.model_validate(ROLLOUT | changes)
    clean = clean_streams(model, batch)
    shown, frames = replace(shown_of(batch), clean=clean), batch.video.shape[1]
    if model.config.has_video:
        shown.clean.video[:, 0] = shown.reference_latent  # what generation starts on
    noise, ids = FrameNoise(7, [4, 5, 6]), [4, 5, 6]

    def drawn(video: str, structure: str) -> Streams:
        pairs = ((video, clean.video), (structure, clean.structure))
        return Streams(*(noise.draw(0, frames, name, tuple(x.shape[2:])) for name, x in pairs))

    past, made = own_clip(
        replace(shown, noise=drawn("video", "structure"), chunk=chunk),
        lambda state: predict(model, state),
        make_schedule(rollout, model.config.sigma_structure_max),
        rounds=-(-frames // chunk),
        pinned_B=torch.ones(3, dtype=torch.bool),
        guesses=struct_start == "previous",
        history_noise=drawn("context_video", "context_structure"),
        level=rollout.context_noise,
    )
    portrait = (shown.reference_latent, shown.reference_tokens) if model.config.has_video else (None, None)
    expected = generate_latents(model, shown.audio, *portrait, config=rollout, seed=7, sample_ids=ids)
    for one, two in ((made.video, expected.video), (made.structure, expected.structure)):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    seen = (frames - 1) // chunk * chunk  # by the last chunk
    torch.testing.assert_close(past.video[:, :seen], made.video[:, :seen], atol=1e-4, rtol=1e-4)
    stream = "video" if model.config.has_video else "structure"
    assert not torch.allclose(getattr(made, stream)[:, 1:], getattr(shown.clean, stream)[:, 1:], atol=0.1)


def test_the_path_is_the_rollouts_with_more_steps() -> None:
    rollout = RolloutConfig.model_validate(ROLLOUT | {"structure_steps": 1})
    few, many = make_schedule(rollout, 0.7), make_schedule(stretched(rollout, 8), 0.7)
    assert many.steps == 8
    for one, two in zip(few, many):
        torch.testing.assert_close(one, two[::4])


def test_places_are_drawn_evenly_and_by_clip_alone() -> None:
    places = draw_places(4, 50, list(range(200)), seed=0, step=3)
    assert torch.equal(places[[5, 9]], draw_places(4, 50, [5, 9], seed=0, step=3))
    counts = torch.bincount(places.flatten(), minlength=4)
    assert len(counts) == 4 and bool((counts.float() / 2500 - 1).abs().max() < 0.08)  # five standard deviations


def test_the_frames_of_a_chunk_are_at_one_place_and_start_from_the_frame_before_it() -> None:
    places = draw_places(64, 5, [0, 1], seed=0, step=3, chunk=2)
    assert places.shape == (2, 5) and torch.equal(places[:, 0], places[:, 1])
    assert torch.equal(places[:, 2], places[:, 3])
    assert len(set(places[0].tolist())) == 3
    past = torch.arange(5.0)[None, :, None, None] + torch.tensor([0.0, 0.1, 0.2, 0.3])[None, None, :, None]
    assert guess_of(past, 2)[0, :, 0, 0].tolist() == pytest.approx([0, 0, 1.3, 1.3, 3.3])
    assert guess_of(past, 1)[0, :, 2, 0].tolist() == pytest.approx([0, 0.3, 1.3, 2.3, 3.3])


def line(shown: Shown) -> Velocity:
    """The velocity of straight paths that end in the true clip, wherever on them one stands."""
    parts = []
    for x, clean, sigma in zip(shown.noisy, shown.clean, shown.sigma):
        level = sigma.view(*sigma.shape, *(1,) * (x.ndim - 2))
        parts.append(torch.where(level > 0, (x - clean) / level.clamp_min(1e-6), 0.0))
    return Velocity(*parts)


def test_steps_along_straight_paths_end_in_the_clip_and_teach_their_velocity(batch: Batch) -> None:
    schedule = make_schedule(RolloutConfig.model_validate(ROLLOUT | {"struct_start": "noise"}), 0.7)
    shown = shown_of(batch)
    pinned = shown.sigma.video[:, 0] == 0
    assert pinned.tolist() == [True, False, True]
    places = draw_places(2, batch.video.shape[1], [1, 2, 3], seed=0, step=0)
    shown = placed(shown, levels_at(schedule, places, pinned), places == 0, None)
    assert torch.equal(shown.learnt.video[:, 0], ~pinned) and bool(shown.learnt.video[:, 1:].all())
    assert bool(shown.learnt.structure.all())
    torch.testing.assert_close(shown.noisy.video[0, 0], batch.video[0, 0])
    ahead = advanced(shown, line(shown), levels_at(schedule, places + 1, pinned))
    for x, y in zip(end_of(ahead, line), shown.clean):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    taught = towards(shown, end_of(ahead, line))
    for clean, noise, sigma, velocity in zip(taught.clean, taught.noise, shown.sigma, line(shown)):
        level = sigma.view(*sigma.shape, *(1,) * (clean.ndim - 2))
        torch.testing.assert_close(torch.where(level > 0, noise - clean, 0.0), velocity, atol=1e-4, rtol=1e-4)


def test_a_past_enters_at_the_level_at_which_generation_caches_it(batch: Batch) -> None:
    shown = shown_of(batch)
    other = Streams(*(torch.ones_like(x) for x in shown.clean))
    history = upon(shown, shown.clean, other, 0.25).history
    assert history is not None and bool((history.sigma_video == 0.25).all())
    torch.testing.assert_close(history.video, 0.75 * shown.clean.video + 0.25)


@pytest.fixture
def distilling(make_config: Callable[..., TrainConfig], tmp_path: Path, model: DualForce) -> Callable[..., TrainConfig]:
    teacher = tmp_path / "teacher"
    model.save_pretrained(teacher)

    def config(run_dir: Path, **changes: Any) -> TrainConfig:
        base: dict[str, Any] = {
            "task": "distill",
            "model": {"start_from": str(teacher), "overrides": {}},
            "objective": {"flame": {"weight": 0}, "drop_audio": 0, "drop_text": 0},
            "distill": {"levels": 4, "audio_guidance": 2.0, "own_histories": 0.5},
            "rollout": ROLLOUT,
        }
        return make_config(run_dir, **{**base, **changes})

    return config


def figures(run_dir: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: {k: v for k, v in line.items() if not k.startswith("time")} for line in lines}


def test_a_run_distils_resumes_to_the_bit_and_refuses_another_teacher(
    distilling: Callable[..., TrainConfig],
    interrupted_after: Callable[..., Any],
    tmp_path: Path,
) -> None:
    changes = {"optim": {"steps": 6, "warmup": 1, "lr": 1e-3}, "log": {"every": 1}, "checkpoint": {"every": 2}}
    straight, broken = (distilling(tmp_path / name, **changes) for name in ("straight", "broken"))
    train(straight)
    with interrupted_after(3):
        assert train(broken).step == 3
    teacher = Path(str(broken.model.start_from))
    kept = {path.name: path.read_bytes() for path in teacher.iterdir()}
    other = DualForce.from_pretrained(teacher)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    other.save_pretrained(teacher)
    with pytest.raises(UserError, match="another teacher"):
        train(broken)
    for name, content in kept.items():
        (teacher / name).write_bytes(content)
    teacher = teacher.rename(tmp_path / "moved")
    train(broken.model_copy(update={"model": broken.model.model_copy(update={"start_from": str(teacher)})}))
    assert figures(tmp_path / "straight") == figures(tmp_path / "broken")
    ends = [DualForce.from_pretrained(tmp_path / name / "model").state_dict() for name in ("straight", "broken")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    start = DualForce.from_pretrained(teacher).state_dict()
    assert start.keys() == ends[0].keys()
    assert any(not torch.equal(value, ends[0][name]) for name, value in start.items())


@pytest.mark.parametrize(("streams", "other", "chunk"), [("video", "structure", 2), ("structure", "video", 1)])
def test_a_model_of_one_stream_is_distilled_in_chunks_of_one_and_more(
    distilling: Callable[..., TrainConfig],
    model_of: Callable[[str], DualForce],
    tmp_path: Path,
    streams: str,
    other: str,
    chunk: int,
) -> None:
    model_of(streams).save_pretrained(tmp_path / "one")
    objective = {"flame": {"weight": 0}, "drop_audio": 0, "drop_text": 0, f"{other}_weight": 0}
    config = distilling(
        tmp_path / "run",
        model={"start_from": str(tmp_path / "one"), "overrides": {}},
        objective=objective,
        rollout={**ROLLOUT, "chunk": chunk},
        optim={"steps": 2, "warmup": 1},
        log={"every": 1},
    )
    train(config)
    assert DualForce.from_pretrained(tmp_path / "run" / "model").config.streams == streams
    told = figures(tmp_path / "run")[2]
    assert told[f"loss/{streams}"] > 0 and f"loss/{other}" not in told


@torch.no_grad()
def test_the_teachers_guided_answer_is_what_is_taught_at_the_last_step(
    distilling: Callable[..., TrainConfig], tmp_path: Path, model: DualForce, batch: Batch
) -> None:
    """From the path's last place on the teacher's own step ends in clean data: nothing of the student is in it."""
    config = distilling(tmp_path / "run", distill={"levels": 2, "audio_guidance": 3.0, "own_histories": 0.0})
    teacher = model
    objective = Distillation(config, model.config, teacher, "sha")
    student = DualForce(model.config)  # its answer must not matter
    clean = Streams(batch.video, model.normalize_structure(batch.structure))
    shown = objective._shown(student, batch, clean, 5, None)
    last = shown.sigma.structure == objective._path.structure[1]
    assert 0 < int(last.sum()) < last.numel()
    full = predict(teacher, shown)
    silent = predict(teacher, replace(shown, audio=torch.zeros_like(shown.audio)))
    for name in Streams._fields:
        taught = getattr(shown.noise, name) - getattr(shown.clean, name)
        guided = getattr(silent, name) + 3.0 * (getattr(full, name) - getattr(silent, name))
        learnt = last & getattr(shown.learnt, name)
        torch.testing.assert_close(taught[learnt], guided[learnt], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("heard", [None, 2])
def test_a_student_hears_as_far_ahead_as_its_rollout(
    distilling: Callable[..., TrainConfig], tmp_path: Path, model: DualForce, batch: Batch, heard: int | None
) -> None:
    config = distilling(tmp_path / "run", distill={"levels": 2, "own_histories": 1.0})
    rollout = config.rollout.model_copy(update={"audio_future": heard})
    objective = Distillation(config.model_copy(update={"rollout": rollout}), model.config, model, "sha")
    clean = Streams(batch.video, model.normalize_structure(batch.structure))
    shown = objective._shown(model, batch, clean, 5, None)
    assert shown.audio_future is not None
    assert shown.audio_future.tolist() == [heard or model.config.audio_future] * len(batch.keys)


def test_a_student_that_hears_less_than_its_teacher_ever_did_is_told(
    distilling: Callable[..., TrainConfig], tmp_path: Path, model: DualForce
) -> None:
    teacher = tmp_path / "general" / "model"
    model.save_pretrained(teacher)
    (tmp_path / "general" / "config.yaml").write_text("objective: {shorten_audio: 0}\n")
    config = distilling(tmp_path / "run", model={"start_from": str(teacher), "overrides": {}})
    assert _latency_note(config, model.config) is None
    less = config.model_copy(update={"rollout": config.rollout.model_copy(update={"audio_future": 0})})
    note = _latency_note(less, model.config)
    assert note is not None and note.startswith(f"the teacher, {config.model.start_from}: rollout.audio_future=0")


def test_own_clips_are_the_students(distilling: Callable[..., TrainConfig], tmp_path: Path, batch: Batch) -> None:
    config = distilling(tmp_path / "run", distill={"levels": 2, "own_histories": 1.0})
    teacher = DualForce.from_pretrained(str(config.model.start_from))
    student = DualForce.from_pretrained(str(config.model.start_from))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(0.9)
    objective = Distillation(config, teacher.config, teacher, "sha")
    clean = Streams(batch.video, teacher.normalize_structure(batch.structure))
    pasts = [objective._shown(model, batch, clean, 5, None).history for model in (teacher, student)]
    assert pasts[0] is not None and pasts[1] is not None
    assert not torch.equal(pasts[0].video[:, 1:], pasts[1].video[:, 1:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"start_from": None}}, "no teacher; name a trained model by model.start_from"),
        ({"distill": {"levels": 3}}, "levels=3 is no multiple of rollout.steps=2"),
        ({"rollout": {**ROLLOUT, "audio_guidance": 2.0}}, "set rollout.audio_guidance=1"),
        ({"rollout": {**ROLLOUT, "structure_guidance": 2.0}}, "set rollout.structure_guidance=1"),
        ({"rollout": {**ROLLOUT, "solver": "heun"}}, "set rollout.solver=euler"),
        ({"rollout": {**ROLLOUT, "chunk": None}}, "set rollout.chunk=1 or more"),
        ({"objective": {"flame": {"weight": 0.1}}}, "set objective.flame.weight=0"),
        ({"objective": {"flame": {"weight": 0}, "drop_audio": 0.1}}, "set drop_audio=0"),
        ({"validation": {"every": 2}}, "set validation.every=0"),
        ({"data": {"num_frames": 3}, "rollout": {**ROLLOUT, "window": 1, "sinks": 1}}, "3 latent .* rollout.window=2"),
        ({"data": {"buckets": [2, 11]}}, "up to 11 latent frames, but .* set rollout.window=11"),
        ({"objective": {"flame": {"weight": 0}, "video_shift": 2.5}}, "objective.video_shift reaches nothing"),
        ({"objective": {"flame": {"weight": 0}, "structure_tail": 0.3}}, "objective.structure_tail reaches nothing"),
        (
            {"objective": {"flame": {"weight": 0}, "history": {"mode": "error_recycling"}}},
            "objective.history reaches nothing",
        ),
    ],
)
def test_settings_that_do_not_go_with_it_are_told(
    distilling: Callable[..., TrainConfig], tmp_path: Path, model: DualForce, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check(distilling(tmp_path / "run", **changes), model.config)


def test_samples_of_a_student_are_given_no_structure(
    distilling: Callable[..., TrainConfig], tmp_path: Path, model: DualForce
) -> None:
    given = {**ROLLOUT, "structure_from": "truth"}
    check_samples(distilling(tmp_path / "run", rollout=given, sample={"clips": 0}), model.config, Trained(True))
    with pytest.raises(UserError, match=r"rollout.structure_from\), but the model is a distilled student"):
        preflight(distilling(tmp_path / "run", rollout=given, sample={"clips": 1}))


def test_clips_that_are_taken_whole_must_fit_the_window(distilling: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = distilling(tmp_path / "run", rollout={**ROLLOUT, "window": 1, "sinks": 1})
    with pytest.raises(UserError, match="of up to 3 latent frames"):
        train(config)
