"""The recipe of a small video VAE: an `AutoencoderKLWan` trained on rendered people, or on real videos.

Shape legend: B batch, P pixel frames, T latent frames, C channels, H, W pixels, h, w latent cells.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from df_models.encoders.video.wan_vae import WEIGHTS, WanVAE, decode_latents, encode_moments, new_autoencoder
from df_models.files import atomic_write, check_output_directory, check_owned, mark_owned
from df_models.locks import one_writer
from df_models.settings import dump_config
from df_models.time import latent_length
from df_train.muon import Muon, split_parameters
from df_train.tokenizer.config import TokenizerConfig, TokenizerLossConfig
from df_train.tokenizer.data import Pool, batches, render_pools
from df_train.tokenizer.videos import check_size, video_pools

OWNER = "df-train-tokenizer"
"""Marks the directories that this recipe may write over."""


def train(config: TokenizerConfig) -> Path:
    """Train, log to `metrics.jsonl`, and write `vae/` (config.json, safetensors in fp16); return its path.

    Raises:
        UserError: no such dataset (`data.shards`) or VAE (`resume`), or one that does not fit.
    """
    preflight(config)
    with one_writer(config.run_dir.path, "df-train"):
        return _train(config)


def _train(config: TokenizerConfig) -> Path:
    mark_owned(config.run_dir.path, OWNER)
    atomic_write(config.run_dir.path / "config.yaml", dump_config(config))
    torch.manual_seed(config.seed)
    train_pool, val_pools = _pools(config)
    vae = _new_vae(config)
    average = torch.optim.swa_utils.AveragedModel(
        vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema)
    )
    optimizers = _optimizers(vae, config)
    total = sum(stage.steps for stage in config.stages)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _linear(step, config.warmup, total))
        for optimizer in optimizers
    ]
    with (
        open(config.run_dir.path / "metrics.jsonl", "w") as log,
        tqdm(total=total, desc="tokenizer", unit="step") as bar,
    ):
        rng = np.random.default_rng(config.seed)
        stages = (batches(stage, train_pool, config, rng) for stage in config.stages)
        for step, batch in enumerate(chain.from_iterable(stages), start=1):
            losses = _step(vae, batch, config, optimizers)
            for schedule in schedules:
                schedule.step()
            average.update_parameters(vae)
            bar.update()
            if step % config.log_every == 0:
                values = {name: float(value.detach()) for name, value in losses.items()}
                bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
                print(json.dumps({"step": step, **values}), file=log, flush=True)
            if step % config.eval_every == 0 or step == total:
                psnr = {name: reconstruction_psnr(average.module, pool) for name, pool in val_pools.items()}
                told = ", ".join(f"{name} {value:.2f} dB" for name, value in psnr.items())
                tqdm.write(f"step {step}: PSNR on held-out clips: {told}")
                print(json.dumps({"step": step, "val_psnr": psnr}), file=log, flush=True)
                export(average.module, train_pool, config.run_dir.path / "vae")
    return config.run_dir.path / "vae"


def preflight(config: TokenizerConfig) -> None:
    """Check what can be checked before any work.

    Raises:
        UserError: no such dataset (`data.shards`) or VAE (`resume`), or one that does not fit.
    """
    check_output_directory(config.run_dir.path, inputs=[] if config.resume is None else [str(config.resume)])
    check_owned(config.run_dir.path, OWNER, ("config.yaml", "metrics.jsonl", "vae"))
    if config.data.shards is not None:
        for split in ("train", "val"):
            check_size(config.data.shards.path / split, config.data.size)
    if config.resume is not None:
        WanVAE.load(config.resume)


def _pools(config: TokenizerConfig) -> tuple[Pool, dict[str, Pool]]:
    shards = None if config.data.shards is None else config.data.shards.path
    return render_pools(config) if shards is None else video_pools(config.data, shards)


def _step(
    vae: nn.Module, batch: tuple[Tensor, Tensor], config: TokenizerConfig, optimizers: list[Any]
) -> dict[str, Tensor]:
    video, weights = batch
    vae.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
        output, mean, log_variance = reconstruct(vae, video, config.loss.latent_noise)
    losses = tokenizer_losses(output.float(), video, weights, mean.float(), log_variance.float(), config.loss)
    losses["loss"].backward()
    losses["grad_norm"] = nn.utils.clip_grad_norm_(vae.parameters(), config.clip_norm)
    for optimizer in optimizers:
        optimizer.step()
    return losses


def reconstruct(vae: nn.Module, video_BCPHW: Tensor, latent_noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Encode, sample, decode, with gradients; return the video and the posterior's mean and log variance."""
    num_latent = latent_length(video_BCPHW.shape[2])
    mean, log_variance = encode_moments(vae, video_BCPHW, num_latent, at_once=num_latent).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    deviation = torch.sqrt(log_variance.exp() + (latent_noise * mean.detach().std()) ** 2)
    latents = mean + deviation * torch.randn_like(mean)
    return decode_latents(vae, latents, at_once=num_latent), mean, log_variance


def tokenizer_losses(
    output: Tensor, video: Tensor, weights: Tensor, mean: Tensor, log_variance: Tensor, config: TokenizerLossConfig
) -> dict[str, Tensor]:
    """Return each term alone and their weighted sum under `loss`."""
    difference = output - video
    emphasis = 1.0 + config.mouth * weights
    l1 = (difference.abs() * emphasis).mean()
    mse = (difference.square() * emphasis).mean()
    gradient = sum((difference.diff(dim=axis)).abs().mean() for axis in (2, 3, 4) if difference.shape[axis] > 1)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    loss = config.l1 * l1 + config.mse * mse + config.gradient * gradient + config.kl * kl
    return {"loss": loss, "l1": l1.detach(), "mse": mse.detach(), "kl": kl.detach()}


@torch.no_grad()
def reconstruction_psnr(vae: nn.Module, pool: Pool) -> float:
    """Return the mean over clips of the PSNR (dB, peak 1) of reconstruction from the posterior's mean."""
    wrapped = WanVAE(vae, name="training", sha256="", licence="Apache-2.0")
    values = []
    for frames in pool.frames:
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255.0
        error = F.mse_loss(wrapped.decode(wrapped.encode(video)), video)
        values.append(-10.0 * torch.log10(error))
    vae.train().requires_grad_(True)
    return float(torch.stack(values).mean())


@torch.no_grad()
def export(vae: nn.Module, pool: Pool, directory: Path, clips: int = 128) -> None:
    """Write `config.json` with the latents' statistics, and the weights in fp16 as safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    video = torch.from_numpy(pool.frames[:clips]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    means = [encode_moments(vae, part, latent_length(part.shape[2])).chunk(2, 1)[0] for part in video.split(8)]
    latents = torch.cat(means).transpose(0, 1).flatten(1)
    stored: Any = vae.config
    config: dict[str, Any] = {key: value for key, value in stored.items() if not key.startswith("_")}
    config["latents_mean"] = [round(float(x), 5) for x in latents.mean(dim=1)]
    config["latents_std"] = [round(float(x), 5) for x in latents.std(dim=1)]
    atomic_write(directory / "config.json", json.dumps(config, indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in vae.state_dict().items()}
    atomic_write(directory / WEIGHTS, save(weights))


def _new_vae(config: TokenizerConfig) -> nn.Module:
    if config.resume is not None:
        vae = WanVAE.load(config.resume).module.train().requires_grad_(True)
    else:
        vae = new_autoencoder(config.architecture)
        _quiet_posterior(vae)
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def _optimizers(vae: nn.Module, config: TokenizerConfig) -> list[Any]:
    matrices, others = split_parameters(vae)
    return [
        Muon(matrices, config.matrix_lr),
        torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.99), weight_decay=0),
    ]


@torch.no_grad()
def _quiet_posterior(vae: nn.Module, log_variance: float = -5.0) -> None:
    """Start with little posterior noise: at the usual log variance of 0 it drowns the signal for many steps."""
    projection: Any = vae.quant_conv
    half = projection.out_channels // 2
    projection.weight[half:].mul_(0.1)
    projection.bias[half:].fill_(log_variance)


def _linear(step: int, warmup: int, total: int) -> float:
    """Warm up, then fall in a straight line to zero."""
    return min((step + 1) / max(1, warmup), (total - step) / max(1, total - warmup))
