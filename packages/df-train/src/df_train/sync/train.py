"""Training of the lip-sync expert: batches of clips, InfoNCE, accuracy on held-out people, and why if it is stuck."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from df_data.format.manifest import Manifest
from df_data.format.shards import iter_samples
from df_data.reading import Batch, ShardReader
from df_data.synth.recorded import check_place
from df_infer.run_dir import RunDir
from df_infer.run_log import RunLog
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory, check_owned, mark_owned
from df_models.locks import one_writer
from df_models.machine import describe_device
from df_models.settings import dump_config
from df_models.time import pooled_width
from df_train.data.dataset import check_lengths, made_data, open_reader, stored, training_manifest
from df_train.data.lengths import shortest_clip
from df_train.ema import ParameterAverage
from df_train.engine import NotFinite
from df_train.optimizer import optimizer_steps, optimizer_tensors, set_optimizer_steps
from df_train.processes.distributed import open_world, pick_device
from df_train.recipe import Rhythm, alone, choose_start, fit, owned_names
from df_train.saving import checkpoint, start
from df_train.saving.start import Wish
from df_train.schedule import ema_decay, learning_rate
from df_train.sync.config import SyncConfig
from df_train.sync.diagnosis import facts_of, paragraph
from df_train.sync.expert import ExpertConfig, SyncExpert, write_expert
from df_train.sync.held_out import HeldOut, measure, pieces_of, read_pieces
from df_train.sync.pairs import check_length, compare, match_loss, with_others

EXPERT = "expert"
"""The folder of a run that holds the trained expert."""
OWNER = "df-train-sync"
"""Marks the directories that this recipe may write over."""

_SCALE_CLIPS = 64
"""Clips that the audio's mean and spread are taken from."""
_DIAGNOSED_CLIPS = 128


@dataclass
class SyncState:
    """Everything that a step changes, and therefore everything that a checkpoint holds."""

    expert: SyncExpert
    average: ParameterAverage
    optimizer: torch.optim.AdamW
    reader: ShardReader
    step: int = 0
    batches: Iterator[Batch] = field(init=False)

    def __post_init__(self) -> None:
        self.batches = iter(self.reader)

    def tensors(self) -> dict[str, Any]:
        """The tensors that a checkpoint saves and loads in place."""
        moments = optimizer_tensors(self.expert, self.optimizer)
        steps = optimizer_steps(self.expert, self.optimizer)
        return {
            "model": self.expert.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": {**moments, "steps": steps},
        }

    def own(self) -> checkpoint.RankState:
        """Where the reader stands."""
        return checkpoint.RankState({"reader": self.reader.state_dict()}, {})

    def restore(self, info: checkpoint.CheckpointInfo) -> None:
        """Go on from a checkpoint.

        Raises:
            UserError: it is of another network.
        """
        tensors = self.tensors()
        checkpoint.load_tensors(info, tensors)
        self.expert.load_state_dict(tensors["model"])
        set_optimizer_steps(self.expert, self.optimizer, tensors["optimizer"]["steps"])
        self.reader.load_state_dict(checkpoint.load_rank(info, 0).values["reader"])
        self.batches = iter(self.reader)
        self.step = info.step


def train(config: SyncConfig, wish: Wish = "default") -> Path:
    """Train, log to `metrics.jsonl`, and write `expert/` (config.json, safetensors); return its path.

    A run that was stopped goes on from its newest checkpoint, step for step as if it had not stopped.

    Raises:
        UserError: no such dataset, one without held-out clips or with clips that are too short; a run that is finished,
            or none to resume.
        KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGUSR1, with a checkpoint saved.
    """
    preflight(config)
    run, rhythm = RunDir(config.run_dir.path), rhythm_of(config)
    with one_writer(run.root, "df-train"), open_world(config.device) as world:
        begin = choose_start(run, rhythm, wish)
        alone(world, "lip-sync expert")
        tqdm.write(f"machine: {describe_device(world.device)}; computing in float32")
        manifest = made_data(config.data, world)
        check_data(config, manifest)
        reader = open_reader(config.data, config.seed, config.expert.audio_pool, world)
        state = new_state(config, manifest, reader, world.device)
        clips = held_out_clips(config)
        if wish == "fresh":
            shutil.rmtree(run.root / EXPERT, ignore_errors=True)
            start.clear(run)
        mark_owned(run.root, OWNER)
        atomic_write(run.config, dump_config(config))
        if begin is not None:
            state.restore(begin)
            tqdm.write(f"resuming {run.root} at step {state.step} of {rhythm.total}")
        log = RunLog(run.metrics, state.step)
        try:
            fit(
                state,
                rhythm,
                run,
                log,
                world,
                step=lambda: take_step(state, config),
                check=lambda: _require_finite(nn.utils.get_total_norm(state.expert.parameters()), state.step, config),
                look=lambda: look(state, config, manifest, clips, run, log),
                save=lambda: (state.tensors(), state.own()),
            )
        finally:
            log.close()
    return run.root / EXPERT


def follows(made: Path) -> str:
    """What to do with a trained expert."""
    named = quote(f"objective.sync.expert={made}")
    return f"a loss of a model on a dataset of the same encoders: df-train ... {named} objective.sync.weight=0.3"


def rhythm_of(config: SyncConfig) -> Rhythm:
    """How long it runs, and when it logs, measures and saves."""
    return Rhythm("lip-sync expert", config.optim.steps, config.log_every, config.eval_every, config.checkpoint)


def preflight(config: SyncConfig) -> None:
    """Check what can be checked before any work.

    Raises:
        UserError: no such device, no dataset or one that does not fit, or a directory that is something else's.
    """
    pick_device(config.device)
    check_output_directory(config.run_dir.path)
    check_owned(config.run_dir.path, OWNER, owned_names(EXPERT))
    if config.data.synth is not None:
        check_length(shortest_clip(config.data, None), config.expert.window)
        check_place(config.data.synth, Path(config.data.root))
    else:
        check_data(config, training_manifest(config.data))


def check_data(config: SyncConfig, manifest: Manifest) -> None:
    """Refuse clips that are too short, and a dataset that does not say which frozen models made it.

    Raises:
        UserError: it lacks what an expert is known by.
    """
    check_lengths(config.data, manifest)
    check_length(shortest_clip(config.data, manifest), config.expert.window)
    lacking = [role for role in ("video_vae", "audio") if role not in manifest.encoders]
    if lacking or "audio" not in manifest.features:
        raise UserError(
            f"{config.data.split('train')} does not say which {' and '.join(lacking or ['audio features'])} made it, "
            "by which an expert is known; build the dataset again"
        )


def new_state(config: SyncConfig, manifest: Manifest, reader: ShardReader, device: torch.device) -> SyncState:
    """The state at step 0; weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        expert = SyncExpert(expert_config(config, manifest))
    set_audio_scale(expert, config)
    expert.to(device)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    return SyncState(expert, ParameterAverage(expert), optimizer, reader)


def expert_config(config: SyncConfig, manifest: Manifest) -> ExpertConfig:
    """What the dataset and the configuration make of the expert."""
    vae, audio = manifest.encoders["video_vae"], manifest.encoders["audio"]
    net = config.expert
    return ExpertConfig(
        latent_channels=16,
        audio_dim=pooled_width(manifest.features["audio"].dim, net.audio_pool),
        video_vae=vae.id,
        video_vae_sha256=vae.sha256,
        audio_encoder=audio.id,
        audio_sha256=audio.sha256,
        **net.model_dump(),
    )


@torch.no_grad()
def set_audio_scale(expert: SyncExpert, config: SyncConfig) -> None:
    """Put the mean and spread of the dataset's audio features into the expert."""
    pool = config.expert.audio_pool
    pieces = [pieces_of(s, 2, pool).audio[:, 1:] for s in itertools.islice(stored(config.data), _SCALE_CLIPS)]
    audio_XD = torch.cat([piece.flatten(0, 2) for piece in pieces])
    expert.audio_mean.copy_(audio_XD.mean(dim=0))
    expert.audio_std.copy_(audio_XD.std(dim=0).clamp_min(1e-3))


def held_out_clips(config: SyncConfig) -> Sequence[HeldOut]:
    """The validation clips that are measured, each cut into pieces of training's (shortest) length.

    Raises:
        UserError: there are none.
    """
    length = shortest_clip(config.data, training_manifest(config.data))
    clips = read_pieces(stored(config.data, "val"), length, config.expert.audio_pool, config.held_out)
    if len(clips) < 2:
        raise UserError(f"{config.data.split('val')} holds fewer than 2 clips to measure the expert on; build it again")
    return clips


def take_step(state: SyncState, config: SyncConfig) -> dict[str, Tensor]:
    """One step; noise depends on the seed and the step alone."""
    expert, optim = state.expert, config.optim
    batch = next(state.batches).to(expert.audio_mean.device)
    loss = batch_loss(expert, noised(batch.video, config, state.step), batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(expert.parameters(), optim.clip)
    _require_finite(norm, state.step + 1, config)
    rate = learning_rate(state.step, peak=optim.lr, warmup=optim.warmup, total=optim.steps, floor=0.0)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.average.update(ema_decay(state.step, decay=optim.ema))
    state.step += 1
    return {"loss": loss.detach(), "grad_norm": norm, "scale": expert.scale.detach()}


def _require_finite(norm: Tensor, step: int, config: SyncConfig) -> None:
    """Raise, before anything is taken over from it or written, unless a norm is a number."""
    if not norm.isfinite():
        raise NotFinite(
            f"the gradient or the weights are not finite at step {step}; the last checkpoint and export are as they "
            f"were: go on with a lower optim.lr (now {config.optim.lr:g})"
        )


def noised(video_BTChw: Tensor, config: SyncConfig, step: int) -> Tensor:
    """The latents with noise of up to `noise`, each clip its own amount."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    noise = torch.randn(video_BTChw.shape, generator=generator)
    amount = config.noise * torch.rand(len(video_BTChw), 1, 1, 1, 1, generator=generator)
    return video_BTChw + (amount * noise).to(video_BTChw.device)


def batch_loss(expert: SyncExpert, video_BTChw: Tensor, batch: Batch) -> Tensor:
    """InfoNCE of all windows of a batch: each one's own audio among its shifts and the other clips'."""
    video, audio = expert.video(video_BTChw, batch.mouth_mask), expert.audio(batch.audio)
    found = compare(video, audio)
    rivals = torch.cat([found.shifted_BNX, with_others(video, audio, batch.keys)], dim=-1)
    losses_BN = match_loss(found.own_BN, rivals, expert.scale)
    return (losses_BN * batch.weight[:, None]).mean()


def look(
    state: SyncState, config: SyncConfig, manifest: Manifest, clips: Sequence[HeldOut], run: RunDir, log: RunLog
) -> None:
    """Measure the averaged weights on held-out people, export them, and say why if they are stuck."""
    with state.average.in_place():
        overall, nearest, exact = measure(state.expert, clips)
        write_expert(state.expert, run.root / EXPERT)
    tqdm.write(
        f"step {state.step}: held-out people, in sync against shifted by 2 to 10 frames: {overall}; by 2 frames: "
        f"{nearest}; best offset 0 in {100 * exact:.0f} % of the clips"
    )
    log.write(
        state.step,
        {"val/accuracy": overall.value, "val/accuracy_2": nearest.value, "val/offset_0": exact},
    )
    tried = state.step - config.stuck_after
    if not overall.low > 0.5 and 0 <= tried < config.eval_every and not math.isnan(overall.value):
        tqdm.write(why_stuck(config, manifest, state.step))


def why_stuck(config: SyncConfig, manifest: Manifest, step: int) -> str:
    """A paragraph about the data of an expert that has learnt nothing."""
    head = f"no better than chance after {step} steps."
    if config.data.remote:
        return f"{head} Its dataset is remote: copy some shards to a directory, where it can be looked into."
    samples = list(itertools.islice(iter_samples(Path(config.data.split("train")), video=False), _DIAGNOSED_CLIPS))
    return f"{head} {paragraph(facts_of(samples), config.expert.window, manifest.speech_level)}"
