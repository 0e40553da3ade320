"""The lip-sync expert: it learns what goes together, its negatives are what they are said to be, and as a frozen loss
it moves the model alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from df_data.format.manifest import read_manifest
from df_data.format.sample import Sample
from df_data.format.shards import iter_samples
from df_data.reading import ShardReader
from df_data.reading.batch import Batch
from df_models import DualForce
from df_models.errors import UserError
from df_models.settings import load_config
from df_models.time import latent_length
from df_train.cli import main
from df_train.config import SyncLossConfig, TrainConfig
from df_train.data.contract import taken_over
from df_train.noising import clean_streams
from df_train.objective import Objective
from df_train.preflight import preflight
from df_train.run import train
from df_train.sync import train as recipe
from df_train.sync.config import SyncConfig
from df_train.sync.diagnosis import facts_of, paragraph
from df_train.sync.expert import ExpertConfig, SyncExpert, load_expert, mouth_region, mouth_square, write_expert
from df_train.sync.held_out import accuracy, best_offset, judged, pieces_of, right_and_all
from df_train.sync.loss import open_judge, windows_of
from df_train.sync.pairs import SHIFTS, compare, match_loss, own_starts, with_others

FRAMES, LATENTS = 41, 11
NET = {"window": 2, "grid": 4, "width": 16, "embedding": 32}


Talk = Callable[..., Sample]


@pytest.fixture(scope="module")
def talk(random_clip: Callable[..., Sample]) -> Talk:
    """A random clip whose mouth follows its audio: `talk(split, index, late=0)`."""
    return lambda split, index, late=0: talking(random_clip(split, index, frames=FRAMES), index, late)


def talking(sample: Sample, index: int, late: int) -> Sample:
    """The clip with audio whose loudness is what the mouth does, `late` pixel frames later.

    One signal at 25 Hz drives both; a latent frame holds its four values in four channels, as the VAE's holds the lips.
    """
    frames = sample.meta.num_frames
    signal_X = torch.randn(frames + 32, generator=torch.Generator().manual_seed(index))
    lips_P, heard_P = signal_X[16 : 16 + frames], signal_X[16 - late : 16 - late + frames]
    tensors = {name: value.clone() for name, value in sample.tensors.items()}
    for latent in range(latent_length(frames)):
        for slot in range(4):
            tensors["video_latent"][latent, slot] = lips_P[max(4 * latent - 3 + slot, 0)].half()
    tensors["audio"][:, :8] = heard_P.repeat_interleave(2)[:, None].half()
    tensors["mouth_boxes"][:, 3] = 12.0 + lips_P
    return Sample(sample.meta, tensors)


@pytest.fixture(scope="module")
def talkers(talk: Talk, split_at: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "talkers"
    split_at(root, "train", (talk("train", index) for index in range(64)))
    split_at(root, "val", (talk("val", 1000 + index) for index in range(8)))
    return root


def config_of(data: Path, run: Path, **changes: Any) -> SyncConfig:
    tree: dict[str, Any] = {
        "run_dir": run,
        "expert": NET,
        "data": {"root": data, "batch_size": 16},
        "optim": {"steps": 60, "lr": 3e-3, "warmup": 5},
        "eval_every": 60,
        "log_every": 10,
        "device": "cpu",
    }
    return SyncConfig.model_validate({**tree, **changes})


@pytest.fixture(scope="module")
def run(talkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe.train(config_of(talkers, tmp_path_factory.mktemp("run") / "sync")).parent


@pytest.fixture
def batch(talkers: Path) -> Batch:
    return next(iter(ShardReader(talkers / "train", batch_size=6, seed=0)))


def small_expert(batch: Batch, **changes: Any) -> SyncExpert:
    own = {"video_vae": "v", "video_vae_sha256": "1", "audio_encoder": "a", "audio_sha256": "2", "margin": 1.75}
    torch.manual_seed(0)
    net = {**NET, "audio_pool": "concat", "audio_dim": batch.audio.shape[-1], "latent_channels": 16, **own, **changes}
    return SyncExpert(ExpertConfig(**net))


# -------------------- learning


def test_it_learns_what_goes_together_on_clips_it_has_not_seen(run: Path):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line["val/accuracy"] for line in lines if "val/accuracy" in line][-1]
    assert found > 0.9, "chance is 0.5"
    assert [line["val/offset_0"] for line in lines if "val/offset_0" in line][-1] == 1.0


def test_it_hears_how_late_audio_is(run: Path, talk: Talk):
    expert, _ = load_expert(run / "expert")
    for late in (-3, 0, 5):
        batch = pieces_of(raw(talk("val", 77, late)), LATENTS, "concat")
        assert best_offset(expert, batch) == late


def raw(sample: Sample) -> Any:
    from df_data.reading.shard import RawSample

    return RawSample(sample.key, 1.0, {name: tensor.numpy() for name, tensor in sample.tensors.items()}, 0)


def test_a_still_mouth_is_at_chance(run: Path, talk: Talk):
    expert, _ = load_expert(run / "expert")
    pairs = []
    for index in range(16):
        batch = pieces_of(raw(talk("val", 200 + index)), LATENTS, "concat")
        other = pieces_of(raw(talk("val", 300 + index)), LATENTS, "concat")  # its own frame would be right at its time
        still = other.video[:, 5:6].expand_as(batch.video)
        pairs.append(right_and_all(judged(expert, batch, still))[0])
    found = accuracy(np.stack(pairs), [str(index) for index in range(16)])
    assert found.low < 0.5 < found.high and (found.clips, found.people) == (16, 16)


def test_clips_of_one_person_do_not_count_as_people():
    pairs_N2 = np.array([[40, 80], [60, 80], [44, 80], [52, 80]])
    apart = accuracy(pairs_N2, ["a", "b", "c", "d"])
    together = accuracy(np.repeat(pairs_N2, 50, axis=0), [person for person in "abcd" for _ in range(50)])
    assert (together.value, together.clips, together.people) == (apart.value, 200, 4)
    assert (together.low, together.high) == pytest.approx((apart.low, apart.high)), "more clips are no more people"
    assert accuracy(np.array([[79, 80], [80, 80]]), ["a", "b"]).high == 1.0, "a share is no more than 1"
    assert np.isnan(accuracy(np.zeros((2, 2)), ["a", "b"]).value), "no comparison"
    assert "200 clips of 4 people" in str(together)


def test_a_held_out_clip_says_who_it_is_of(talkers: Path):
    config = config_of(talkers, talkers / "none", held_out=3)
    samples = [sample for sample, _ in zip(iter_samples(talkers / "val"), range(3))]
    people = [clip.person for clip in recipe.held_out_clips(config)]
    assert people == [sample.meta.identity for sample in samples] and all(people)


def test_a_stopped_run_goes_on_as_if_it_had_not(talkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = {"optim": {"steps": 8, "warmup": 1}, "eval_every": 8, "log_every": 1, "checkpoint": {"every": 3, "keep": 1}}
    whole = recipe.train(config_of(talkers, tmp_path / "whole", **short))
    original, taken = recipe.take_step, []

    def interrupted(state: Any, config: Any) -> Any:
        taken.append(state.step)
        if len(taken) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(state, config)

    monkeypatch.setattr(recipe, "take_step", interrupted)
    broken = config_of(talkers, tmp_path / "broken", **short)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(broken)
    path = recipe.train(broken)
    assert taken == list(range(8)), "no step twice"
    for name in ("model.safetensors", "config.json"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("broken", "whole")]
    assert logs[0] == logs[1]


def test_the_command_trains_it_and_refuses_clips_that_are_too_short(
    talkers: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "sync.yaml"
    file.write_text(
        f"task: sync\nexpert: {json.dumps(NET)}\noptim: {{steps: 2, warmup: 1}}\ndevice: cpu\n"
        f"data: {{batch_size: 8}}\nrun_dir: {tmp_path / 'run'}\n"
    )
    assert main(["--config", str(file), "--data", str(dataset)]) == 2
    assert "too short" in capsys.readouterr().err
    assert main(["--config", str(file), "--data", str(talkers), "--check"]) == 0
    assert not (tmp_path / "run").exists()
    assert main(["--config", str(file), "--data", str(talkers)]) == 0
    assert load_expert(tmp_path / "run" / "expert")[0].config.video_vae == "df-tiny"
    assert main(["--config", str(file), "--data", str(talkers)]) == 2
    assert "finished run" in capsys.readouterr().err


# -------------------- pairs


def test_candidates_are_the_shifted_audio_itself(batch: Batch):
    """The audio of a window moved by s frames is what the expert hears of a clip whose audio is moved by s frames."""
    expert = small_expert(batch).eval()
    video, audio = expert.video(batch.video, batch.mouth_mask), expert.audio(batch.audio)
    found = compare(video, audio)
    window = NET["window"]
    assert video.shape[1] == LATENTS - window
    assert sorted({abs(shift) for shift in SHIFTS}) == list(range(2, 11))
    slots = batch.audio.flatten(1, 2)[:, 3:]  # pixel frame p is row p
    normal = (slots - expert.audio_mean) / expert.audio_std
    for n, x in ((0, SHIFTS.index(7)), (4, SHIFTS.index(-10)), (LATENTS - window - 1, SHIFTS.index(-2))):
        first = 4 * n + 1 + SHIFTS[x]
        heard = torch.nn.functional.normalize(expert.hear(normal[:, first : first + 4 * window].mT)[..., 0], dim=-1)
        torch.testing.assert_close(found.shifted_BNX[:, n, x], (video[:, n] * heard).sum(dim=-1))
    first = own_starts(video.shape[1], video.device)
    for n in range(video.shape[1]):
        for x, shift in enumerate(SHIFTS):
            fits = first[n] + shift >= 0 and first[n] + shift + 4 * window <= FRAMES
            assert bool(torch.isfinite(found.shifted_BNX[:, n, x]).all()) == bool(fits)


def test_other_clips_are_rivals_and_a_clip_is_none_of_its_own(batch: Batch):
    expert = small_expert(batch)
    video, audio = expert.video(batch.video, batch.mouth_mask), expert.audio(batch.audio)
    keys = [*batch.keys[:-1], batch.keys[0]]
    others = with_others(video, audio, keys)
    out = ~torch.isfinite(others[:, 0])
    expected = torch.eye(6, dtype=torch.bool)
    expected[0, 5] = expected[5, 0] = True
    assert torch.equal(out, expected)


def test_the_loss_is_the_cross_entropy_of_the_right_candidate():
    own, others = torch.tensor([[0.5, 0.2]]), torch.tensor([[[0.1, -torch.inf], [-torch.inf, -torch.inf]]])
    scale = torch.tensor(3.0, requires_grad=True)
    loss = match_loss(own, others, scale)
    wanted = torch.nn.functional.cross_entropy(torch.tensor([[1.5, 0.3]]), torch.tensor([0]))
    torch.testing.assert_close(loss.detach()[0, 0], wanted)
    assert loss[0, 1] == 0.0
    loss.sum().backward()
    assert scale.grad is not None and torch.isfinite(scale.grad)


def test_the_region_is_the_clips_and_not_the_frames(batch: Batch):
    """The mouth's box of a single frame says nothing: only their mean over the clip does."""
    turned = batch.mouth_mask.flip(1)
    one, two = (mouth_region(batch.video, mask, 4, 1.5) for mask in (batch.mouth_mask, turned))
    torch.testing.assert_close(one, two)
    mask = torch.zeros(1, 3, 8, 8)
    mask[:, :, 5:7, 2:5] = 1.0
    centre, side = mouth_square(mask)
    torch.testing.assert_close(centre, torch.tensor([[3.5, 6.0]]))
    torch.testing.assert_close(side, torch.tensor([3.0]))
    ramp = torch.arange(8.0).expand(1, 3, 16, 8, 8) + 0.5
    columns = mouth_region(ramp, mask, 4, 1.0)[0, 0, 0, 0]
    torch.testing.assert_close(columns, torch.tensor([2.375, 3.125, 3.875, 4.625]))
    large = torch.nn.functional.interpolate(ramp[0], scale_factor=8, mode="bilinear")[None]
    coarse = mouth_region(large, torch.nn.functional.interpolate(mask, scale_factor=8), 4, 1.0)[0, 0, 0, 0]
    torch.testing.assert_close(coarse, columns, atol=0.05, rtol=0.0)


# -------------------- why it is stuck


def test_a_diagnosis_names_the_offset(talk: Talk):
    samples = [talk("train", index, late=4) for index in range(24)]
    facts = facts_of(samples)
    assert (facts.offset, facts.speakers, facts.frames) == (4, 24, (FRAMES, FRAMES))
    told = paragraph(facts, 2, -20.0)
    assert "audio comes 4 pixel frames (160 ms) late" in told and "-20 dB" in told


def test_a_diagnosis_names_still_lips_and_unrelated_audio(random_clip: Talk):
    samples = [random_clip("train", index, frames=FRAMES) for index in range(8)]
    facts = facts_of(samples)
    assert facts.still == 1.0
    told = paragraph(facts, 2, None)
    assert "lips are still in 100 % of the clips" in told and "8 speakers are few" in told
    assert "explains nothing" in told


def test_an_expert_at_chance_says_why(
    dataset_at: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = dataset_at(tmp_path / "random", train=16, val=3, frames=(FRAMES,))
    short = {
        "optim": {"steps": 4, "warmup": 1},
        "stuck_after": 2,
        "eval_every": 2,
        "data": {"root": data, "batch_size": 8},
    }
    recipe.train(SyncConfig.model_validate({**config_of(data, tmp_path / "run").model_dump(), **short}))
    told = capsys.readouterr().out
    assert told.count("no better than chance after 2 steps. Most likely:") == 1
    assert told.count("no better than chance") == 1, "once is enough"


# -------------------- as a loss


@pytest.fixture(scope="module")
def model(talkers: Path, tiny_model: dict[str, int]) -> DualForce:
    torch.manual_seed(0)
    known = taken_over(read_manifest(talkers / "train"))
    return DualForce.from_preset("quickstart", **{**known, **tiny_model})


def objective_of(make_config: Callable[..., Any], model: DualForce, expert: Path, **changes: Any) -> Objective:
    sync = {"weight": 0.3, "expert": expert, "sigma_max": 1.0, **changes}
    off = {"video_weight": 0.0, "structure_weight": 0.0, "flame": {"weight": 0.0}}
    return Objective(make_config(Path("run"), objective={**off, "sync": sync}), model.config, None)


def test_its_gradient_reaches_the_model_by_the_mouth_alone(
    make_config: Callable[..., Any], model: DualForce, batch: Batch, run: Path
):
    objective = objective_of(make_config, model, run / "expert")
    assert objective.names[-1] == "sync"
    losses = objective(model, batch, 3, None)
    model.zero_grad()
    losses.total.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.video.head.parameters())
    judge = objective._judge
    assert judge is not None and all(p.grad is None for p in judge.expert.parameters())
    assert not any("expert" in name for name in model.state_dict())


def test_only_cells_near_the_mouth_get_a_gradient(batch: Batch):
    expert = small_expert(batch).requires_grad_(False)
    video = torch.randn(2, LATENTS, 16, 16, 16, requires_grad=True)
    mask = torch.zeros(2, LATENTS, 16, 16)
    mask[:, :, 11:13, 6:10] = 1.0
    found = compare(expert.video(video, mask), expert.audio(batch.audio[:2]))
    match_loss(found.own_BN, found.shifted_BNX, 14.0).sum().backward()
    assert video.grad is not None
    reached = video.grad.abs().amax(dim=(0, 1, 2)) > 0
    assert reached[10:14, 6:10].all() and not reached[:7].any() and not reached[:, :3].any()
    assert not video.grad[:, 0].any(), "a clip's first latent frame is in no window"


def test_windows_count_where_the_expert_can_read_them(
    make_config: Callable[..., Any], model: DualForce, batch: Batch, run: Path
):
    objective = objective_of(make_config, model, run / "expert", sigma_max=0.5)
    shown = objective._shown(model, batch, clean_streams(model, batch), 3, None)
    audio = shown.audio.clone()
    audio[1] = 0.0  # this clip was shown without its audio
    shown = replace(shown, audio=audio)
    judge = objective._judge
    assert judge is not None
    term = judge.term(shown.noisy.video, batch, shown)
    window = NET["window"]
    level = windows_of(shown.sigma.video, window).mean(dim=-1)
    wanted = (level <= 0.5) & windows_of(shown.learnt.video, window).any(dim=-1)
    wanted[1] = False
    assert wanted.any() and torch.equal(term.counts_BT[:, window:].bool(), wanted)
    assert not term.counts_BT[:, :window].any()
    torch.testing.assert_close(term.sigma_BT[:, window:], level)


def test_the_right_mouth_costs_less_than_another_clips(run: Path, batch: Batch):
    expert, _ = load_expert(run / "expert")
    audio = expert.audio(batch.audio)

    def loss(video: torch.Tensor) -> float:
        found = compare(expert.video(video, batch.mouth_mask), audio)
        return float(match_loss(found.own_BN, found.shifted_BNX, expert.scale).mean())

    assert loss(batch.video) < 0.5 * loss(batch.video.roll(1, 0))


def test_an_expert_of_other_encoders_is_refused(model: DualForce, run: Path, tmp_path: Path):
    settings = SyncLossConfig.model_validate({"weight": 0.3, "expert": run / "expert"})
    assert open_judge(settings, model.config) is not None
    own = load_expert(run / "expert")[0]
    for change, said in (
        ({"video_vae_sha256": "f" * 64}, "knows another video VAE"),
        ({"audio_sha256": "f" * 64}, "knows another audio encoder"),
        ({"audio_pool": "mean"}, "audio_pool=mean, the model has concat"),
    ):
        other = SyncExpert(replace(own.config, **change))
        write_expert(other, tmp_path / "other")
        wrong = settings.model_copy(update={"expert": type(settings.expert)(tmp_path / "other")})  # type: ignore[misc]
        with pytest.raises(UserError, match=said):
            open_judge(wrong, model.config)


def test_what_is_no_expert_is_told_in_one_line(model: DualForce, run: Path, tmp_path: Path):
    def opened(place: Path) -> None:
        open_judge(SyncLossConfig.model_validate({"weight": 0.3, "expert": place}), model.config)

    with pytest.raises(UserError, match="holds no lip-sync expert"):
        opened(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / "expert" / name).read_bytes())
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="no lip-sync expert that this version reads"):
        opened(tmp_path)


@pytest.mark.parametrize("data", [{"buckets": [3, 9]}, {"num_frames": 3}])
def test_clips_that_are_too_short_for_the_expert_are_told_before_a_run_begins(
    make_config: Callable[..., Any], talkers: Path, run: Path, tmp_path: Path, data: dict[str, Any]
):
    sync = {"weight": 0.3, "expert": run / "expert"}
    config = make_config(tmp_path / "run", data={"root": talkers, **data}, objective={"sync": sync})
    with pytest.raises(UserError, match="clips of 3 latent frames are too short for a lip-sync expert"):
        preflight(config)


def test_a_run_knows_its_expert_and_goes_on_with_no_other(
    make_config: Callable[..., Any], after_steps: Callable[..., Any], talkers: Path, run: Path, tmp_path: Path
):
    place = tmp_path / "expert"
    write_expert(load_expert(run / "expert")[0], place)
    sync = {"weight": 0.3, "expert": place, "sigma_max": 1.0}

    def config(name: str, steps: int) -> TrainConfig:
        changes = {"data": {"root": talkers, "batch_size": 4}, "objective": {"sync": sync}}
        return make_config(tmp_path / name, **changes, optim={"steps": steps, "warmup": 1}, log={"every": 1})

    train(config("whole", 3))
    with after_steps(2, act=lambda trainer: os.kill(os.getpid(), signal.SIGINT)):
        assert train(config("parts", 3)).step == 2
    train(config("parts", 3))
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss/sync"]) for line in lines if "loss" in line)
    assert weights[0] == weights[1]
    recorded = load_config(TrainConfig, tmp_path / "whole" / "config.yaml", recorded=True)
    assert recorded.objective.sync.sha256 == load_expert(place)[1]
    write_expert(SyncExpert(load_expert(place)[0].config), place)
    with pytest.raises(UserError, match="begun with another lip-sync expert"):
        train(config("whole", 6), "resume")
    with pytest.raises(UserError, match="is another expert"):
        train(recorded.model_copy(update={"optim": config("whole", 6).optim}), "resume")
