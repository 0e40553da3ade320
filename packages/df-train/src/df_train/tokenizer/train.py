"""The recipe of a small video VAE of Wan's form, trained on rendered people, or on real videos.

Shape legend: B batch, P pixel frames, T latent frames, C channels, H, W pixels, h, w latent cells.
"""

from __future__ import annotations

import shutil
import statistics
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from tqdm import tqdm

from df_infer.run_dir import RunDir
from df_infer.run_log import RunLog
from df_models.cli_support import command
from df_models.encoders.video.wan_autoencoder import WanAutoencoder
from df_models.encoders.video.wan_vae import WanVAE, new_autoencoder
from df_models.encoders.video.wan_vae_files import write_autoencoder
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory, check_owned, mark_owned
from df_models.initial_values import without_initial_values
from df_models.locks import one_writer
from df_models.machine import Precision, choose_precision, describe_device
from df_models.settings import dump_config
from df_models.time import latent_length
from df_train.ema import ParameterAverage
from df_train.engine import NotFinite
from df_train.processes.distributed import World, open_world
from df_train.recipe import Rhythm, alone, choose_start, fit, owned_names
from df_train.saving import checkpoint, start
from df_train.saving.start import Wish
from df_train.schedule import ema_decay
from df_train.tokenizer.config import TokenizerConfig, TokenizerLossConfig
from df_train.tokenizer.data import Pool, batch_at, region_weights, render_pools
from df_train.tokenizer.muon import Muon, split_parameters
from df_train.tokenizer.videos import check_size, video_pools

VAE = "vae"
"""The folder of a run that holds the trained VAE."""

OWNER = "df-train-tokenizer"
"""Marks the directories that this recipe may write over."""


@dataclass
class TokenizerState:
    """Everything that a step changes, and therefore everything that a checkpoint holds."""

    vae: WanAutoencoder
    average: ParameterAverage
    muon: Muon
    adam: torch.optim.AdamW
    step: int = 0

    def tensors(self) -> dict[str, Any]:
        """The tensors that a checkpoint saves and loads in place; moments are made (as zeros) if they are not there."""
        names = {parameter: name for name, parameter in self.vae.named_parameters()}
        moments: dict[str, Tensor] = {}
        for optimizer, kinds in ((self.muon, ("momentum",)), (self.adam, ("exp_avg", "exp_avg_sq", "step"))):
            for parameter in optimizer.param_groups[0]["params"]:
                own = optimizer.state[parameter]
                for kind in kinds:
                    own.setdefault(kind, torch.zeros(()) if kind == "step" else torch.zeros_like(parameter))
                    moments[f"{kind}.{names[parameter]}"] = own[kind]
        return {"model": self.vae.state_dict(), "average": self.average.state_dict(), "optimizer": moments}

    def restore(self, info: checkpoint.CheckpointInfo) -> None:
        """Go on from a checkpoint.

        Raises:
            UserError: it is of another architecture.
        """
        checkpoint.load_tensors(info, self.tensors())
        self.step = info.step

    def averaged(self) -> WanAutoencoder:
        """A copy with the averaged weights."""
        copy = deepcopy(self.vae)
        copy.load_state_dict({**copy.state_dict(), **self.average.state_dict()})  # an average has no buffers
        return copy


def train(config: TokenizerConfig, wish: Wish = "default") -> Path:
    """Train, log to `metrics.jsonl`, and write `vae/` (config.json, safetensors in fp16); return its path.

    A run that was stopped goes on from its newest checkpoint, step for step as if it had not stopped.

    Raises:
        UserError: no such dataset (`data.shards`) or VAE (`start_from`), or one that does not fit; a run that is
            finished, or none to resume.
        NotFinite: the gradient or the weights are no longer numbers; nothing is saved or exported then.
        KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGUSR1, with a checkpoint saved.
    """
    preflight(config)
    run = RunDir(config.run_dir.path)
    with one_writer(run.root, "df-train"), open_world(config.device) as world:
        begin = choose_start(run, rhythm_of(config), wish)
        alone(world, "tokenizer")
        precision = choose_precision(config.precision.name, world.device)
        tqdm.write(f"machine: {describe_device(world.device)}; computing in {precision}")
        if wish == "fresh":
            clear(run)
        mark_owned(run.root, OWNER)
        atomic_write(run.config, dump_config(config))
        train_pool, val_pools = _pools(config)
        state = new_state(config, world.device)
        if begin is not None:
            state.restore(begin)
            tqdm.write(f"resuming {run.root} at step {state.step} of {config.steps}")
        log = RunLog(run.metrics, state.step)
        try:
            _fit(state, config, precision, train_pool, val_pools, run, log, world)
        finally:
            log.close()
    return run.root / VAE


def _fit(
    state: TokenizerState,
    config: TokenizerConfig,
    precision: Precision,
    train_pool: Pool,
    val_pools: dict[str, Pool],
    run: RunDir,
    log: RunLog,
    world: World,
) -> None:
    fit(
        state,
        rhythm_of(config),
        run,
        log,
        world,
        step=lambda: _figures(take_step(state, train_pool, config, precision)),
        check=lambda: _require_finite(get_total_norm(state.vae.parameters()), "weights", state.step, config),
        look=lambda: _look(state, train_pool, val_pools, run, log),
        save=lambda: (state.tensors(), checkpoint.RankState({}, {})),
    )


def rhythm_of(config: TokenizerConfig) -> Rhythm:
    """How long it runs, and when it logs, measures and saves."""
    return Rhythm("tokenizer", config.steps, config.log_every, config.eval_every, config.checkpoint)


def _figures(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in losses.items()}


def _look(state: TokenizerState, train_pool: Pool, val_pools: dict[str, Pool], run: RunDir, log: RunLog) -> None:
    """Measure the averaged weights on held-out clips, and export them."""
    averaged = state.averaged()
    found = {name: reconstruction_psnr(averaged, pool) for name, pool in val_pools.items()}
    for clips, psnr in found.items():
        told = ", ".join(f"{value:.2f} dB {region}" for region, value in psnr.items())
        tqdm.write(f"step {state.step}: PSNR on held-out clips ({clips}): {told}")
    log.write(state.step, {"val_psnr": found})
    export(averaged, train_pool, run.root / VAE)


def clear(run: RunDir) -> None:
    """Remove what a run of this recipe has written."""
    shutil.rmtree(run.root / VAE, ignore_errors=True)
    start.clear(run)


def follows(made: Path) -> str:
    """What to do with a trained tokenizer."""
    named = quote(f"video_vae={made}")
    return f"a dataset that is encoded by it: {command(f'df-data build --config FILE {named}')}"


def preflight(config: TokenizerConfig) -> None:
    """Check what can be checked before any work.

    Raises:
        UserError: no such dataset (`data.shards`), VAE (`start_from`) or `architecture`, or one that does not fit.
    """
    if config.start_from is None:
        try:
            with without_initial_values():
                new_autoencoder(config.architecture)
        except (TypeError, ValueError) as error:
            raise UserError(f"architecture describes no video VAE: {error}") from error
    check_output_directory(config.run_dir.path, inputs=[] if config.start_from is None else [str(config.start_from)])
    check_owned(config.run_dir.path, OWNER, owned_names(VAE))
    if config.data.shards is not None:
        for split in ("train", "val"):
            check_size(config.data.shards.path / split, config.data.size)
    if config.start_from is not None:
        WanVAE.load(config.start_from)


def _pools(config: TokenizerConfig) -> tuple[Pool, dict[str, Pool]]:
    shards = None if config.data.shards is None else config.data.shards.path
    return render_pools(config) if shards is None else video_pools(config.data, shards)


def take_step(state: TokenizerState, pool: Pool, config: TokenizerConfig, precision: Precision) -> dict[str, Tensor]:
    """One step; the batch and the noise of the latents depend on the seed and the step alone."""
    vae = state.vae
    device = next(vae.parameters()).device
    video, weights = (part.to(device) for part in batch_at(state.step, pool, config))
    torch.manual_seed(config.seed * 1_000_003 + state.step)
    vae.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision.dtype == torch.bfloat16):
        output, mean, log_variance = reconstruct(vae, video, config.loss.latent_noise)
    losses = tokenizer_losses(output.float(), video, weights, mean.float(), log_variance.float(), config.loss)
    losses["loss"].backward()
    losses["grad_norm"] = nn.utils.clip_grad_norm_(vae.parameters(), config.clip_norm)
    _require_finite(losses["grad_norm"], "gradient", state.step + 1, config)
    rate = _linear(state.step, config.warmup, config.steps)
    for optimizer, peak in ((state.muon, config.matrix_lr), (state.adam, config.lr)):
        optimizer.param_groups[0]["lr"] = peak * rate
        optimizer.step()
    state.average.update(ema_decay(state.step, decay=config.ema))
    state.step += 1
    return losses


def _require_finite(norm: Tensor, of: str, step: int, config: TokenizerConfig) -> None:
    """Raise, before anything is taken over from it or written, unless a norm is a number.

    Raises:
        NotFinite: with the way out.
    """
    if not norm.isfinite():
        raise NotFinite(
            f"not finite at step {step}: the norm of the tokenizer's {of}; the last checkpoint and export are as they "
            f"were: go on with lower rates (lr={config.lr:g}, matrix_lr={config.matrix_lr:g})"
        )


def reconstruct(vae: WanAutoencoder, video_BCPHW: Tensor, latent_noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Encode, sample, decode, with gradients; return the video and the posterior's mean and log variance."""
    num_latent = latent_length(video_BCPHW.shape[2])
    mean, log_variance = vae.encode_clip(video_BCPHW, at_once=num_latent).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    deviation = torch.sqrt(log_variance.exp() + (latent_noise * mean.detach().std()) ** 2)
    latents = mean + deviation * torch.randn_like(mean)
    return vae.decode_clip(latents, at_once=num_latent), mean, log_variance


def tokenizer_losses(
    output: Tensor, video: Tensor, weights: Tensor, mean: Tensor, log_variance: Tensor, config: TokenizerLossConfig
) -> dict[str, Tensor]:
    """Return each term alone and their weighted sum under `loss`; ``weights`` of pixels come on top of 1."""
    difference = output - video
    emphasis = 1.0 + weights
    l1 = (difference.abs() * emphasis).mean()
    mse = (difference.square() * emphasis).mean()
    gradient = sum((difference.diff(dim=axis)).abs().mean() for axis in (2, 3, 4) if difference.shape[axis] > 1)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    loss = config.l1 * l1 + config.mse * mse + config.gradient * gradient + config.kl * kl
    return {"loss": loss, "l1": l1.detach(), "mse": mse.detach(), "kl": kl.detach()}


@torch.no_grad()
def reconstruction_psnr(vae: WanAutoencoder, pool: Pool) -> dict[str, float]:
    """Return the mean over clips of the PSNR (dB, peak 1) of reconstruction from the posterior's mean.

    Of the whole picture, of the mouth's box and, where they are known, of the eyes'.
    """
    wrapped = WanVAE(vae, name="training", sha256="", licence="Apache-2.0")
    values: dict[str, list[float]] = {}
    for frames, boxes_PR4 in zip(pool.frames, torch.from_numpy(pool.boxes), strict=True):
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255.0
        error_PHW = (wrapped.decode(wrapped.encode(video)).cpu() - video).square().mean(dim=2)[0]
        parts = {
            "in all": torch.ones_like(error_PHW),
            "mouth": region_weights(boxes_PR4[None, :, :1], (1,), len(frames[0]))[0, 0],
        }
        if boxes_PR4.shape[1] > 1:
            parts["eyes"] = region_weights(boxes_PR4[None, :, 1:], (1, 1), len(frames[0]))[0, 0]
        for name, inside_PHW in parts.items():
            error = (error_PHW * inside_PHW).sum() / inside_PHW.sum()
            values.setdefault(name, []).append(float(-10.0 * torch.log10(error)))
    return {name: statistics.mean(each) for name, each in values.items()}


@torch.no_grad()
def export(vae: WanAutoencoder, pool: Pool, directory: Path, clips: int = 128) -> None:
    """Write `config.json` with the latents' statistics, and the weights in fp16 as safetensors."""
    video = torch.from_numpy(pool.frames[:clips]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    device = next(vae.parameters()).device
    parts = [part.to(device) for part in video.split(8)]
    means = [vae.encode_clip(part).chunk(2, 1)[0].cpu() for part in parts]
    latents = torch.cat(means).transpose(0, 1).flatten(1)
    mean, std = ([round(float(x), 5) for x in each] for each in (latents.mean(dim=1), latents.std(dim=1)))
    write_autoencoder(deepcopy(vae).half(), directory, latents_mean=mean, latents_std=std)


def _new_vae(config: TokenizerConfig) -> WanAutoencoder:
    if config.start_from is not None:
        vae = WanVAE.load(config.start_from).module.train().requires_grad_(True)
    else:
        vae = new_autoencoder(config.architecture)
        _quiet_posterior(vae)
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def new_state(config: TokenizerConfig, device: torch.device) -> TokenizerState:
    """The state at step 0; new weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = _new_vae(config).to(device)
    matrices, others = split_parameters(vae)
    return TokenizerState(
        vae,
        ParameterAverage(vae),
        Muon(matrices, config.matrix_lr),
        torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.99), weight_decay=0),
    )


@torch.no_grad()
def _quiet_posterior(vae: WanAutoencoder, log_variance: float = -5.0) -> None:
    """Start with little posterior noise: at the usual log variance of 0 it drowns the signal for many steps."""
    projection = vae.quant_conv
    assert projection.bias is not None
    half = projection.out_channels // 2
    projection.weight[half:].mul_(0.1)
    projection.bias[half:].fill_(log_variance)


def _linear(step: int, warmup: int, total: int) -> float:
    """Warm up, then fall in a straight line to zero."""
    return min((step + 1) / max(1, warmup), (total - step) / max(1, total - warmup))
