"""The frozen lip-sync expert as a loss: is the audio in sync the best match of the mouth that the model predicts?

The predicted clean latents of every window of W latent frames are matched with their own audio among the same audio
shifted by 2 to 10 pixel frames (`df_train.sync.pairs`). Other clips are no candidates here, as they are in the expert's
own training: a loss would then depend on which clips share a process. Gradients reach the model by the predicted
latents of the mouth region alone; the expert gets none, and is no part of the model.

A window counts at its last frame: `error_BT[:, t]` is that of frames t - W + 1 to t, and its noise level the mean of
theirs. Frames that are given clean enter as they are, without a gradient.

Shape legend: B clips, T latent frames, N = T - W windows, C latent channels, h, w latent cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from df_data.reading import Batch
from df_models import DualForceConfig
from df_models.encoders import encoder_id
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_train.config import SyncLossConfig
from df_train.figures.meter import LossTerm
from df_train.noising import Shown
from df_train.sync.expert import SyncExpert, load_expert
from df_train.sync.pairs import check_length, compare, match_loss


@dataclass(frozen=True)
class SyncJudge:
    """A frozen expert and how its verdict counts.

    Attributes:
        sha256: of the expert's files.
        sigma_max: noise level (mean of a window) up to which windows count.
    """

    expert: SyncExpert
    sha256: str
    sigma_max: float

    def term(self, video_BTChw: Tensor, batch: Batch, shown: Shown) -> LossTerm:
        """The loss of predicted clean latents.

        It counts nothing in windows above `sigma_max`, in those without a frame that is learnt or without a mouth, and
        in clips that the model was not shown the audio of.

        Raises:
            UserError: the clips are too short for the expert's window.
        """
        window = self.expert.config.window
        check_length(video_BTChw.shape[1], window)
        expert = self.expert.to(video_BTChw.device)
        with torch.autocast(video_BTChw.device.type, enabled=False):
            found = compare(expert.video(video_BTChw.float(), batch.mouth_mask), expert.audio(batch.audio))
            error_BN = match_loss(found.own_BN, found.shifted_BNX, expert.scale)
        sigma_BN = windows_of(shown.sigma.video, window).mean(dim=-1)
        seen_B = (batch.mouth_mask.flatten(1).any(dim=1)) & shown.audio.flatten(1).any(dim=1)
        counts_BN = (sigma_BN <= self.sigma_max) & windows_of(shown.learnt.video, window).any(dim=-1) & seen_B[:, None]
        rest = (video_BTChw.shape[1] - error_BN.shape[1], 0)
        return LossTerm(F.pad(error_BN, rest), F.pad(counts_BN.float(), rest), F.pad(sigma_BN, rest))


def windows_of(x_BT: Tensor, window: int) -> Tensor:
    """`[B, N, W]`: what belongs to the frames of each window; the first frame is in none."""
    return x_BT[:, 1:].unfold(1, window, 1)


def open_judge(settings: SyncLossConfig, model: DualForceConfig) -> SyncJudge | None:
    """The expert that a run asks for, held against its model; None without a weight.

    Raises:
        UserError: there is none, it is another one than was recorded, or it knows another video VAE or audio encoder.
    """
    if settings.weight == 0 or settings.expert is None:
        return None
    expert, sha256 = load_expert(settings.expert.path)
    if settings.sha256 not in (None, sha256):
        raise UserError(
            f"objective.sync.expert={settings.expert} is another expert (sha256 {sha256[:12]}) than the run was begun "
            f"with ({settings.sha256[:12]}); give that one, or say --fresh with objective.sync.sha256=null"  # type: ignore[index]
        )
    _check_fit(expert, settings.expert, model)
    return SyncJudge(expert, sha256, settings.sigma_max)


def check_windows(settings: SyncLossConfig, latent_frames: int) -> None:
    """Hold the expert's window against the shortest clips of training.

    Raises:
        UserError: there is no expert, or they are too short for it.
    """
    if settings.weight > 0 and settings.expert is not None:
        check_length(latent_frames, load_expert(settings.expert.path)[0].config.window)


def pinned(settings: SyncLossConfig) -> SyncLossConfig:
    """The settings with the expert's sha256, as a run records them.

    Raises:
        UserError: there is no expert.
    """
    if settings.weight == 0 or settings.expert is None or settings.sha256 is not None:
        return settings
    return settings.model_copy(update={"sha256": load_expert(settings.expert.path)[1]})


def _check_fit(expert: SyncExpert, place: str, model: DualForceConfig) -> None:
    own = expert.config
    pairs = (
        ("audio_pool", own.audio_pool, model.audio_pool),
        ("audio_dim", own.audio_dim, model.audio_dim),
        ("latent_channels", own.latent_channels, model.latent_channels),
    )
    for name, has, wants in pairs:
        if has != wants:
            raise UserError(
                f"objective.sync.expert={place} was trained with {name}={has}, the model has {wants}; train an expert "
                "for it (task: sync)"
            )
    _check_encoder(place, "video VAE", (own.video_vae, own.video_vae_sha256), model, "video_vae")
    _check_encoder(place, "audio encoder", (own.audio_encoder, own.audio_sha256), model, "audio")


def _check_encoder(place: str, what: str, own: tuple[str, str], model: DualForceConfig, role: str) -> None:
    """By hash where the model knows one, else by name."""
    name, sha256 = own
    known = model.encoder_hash(role)
    wanted = model.video_vae if role == "video_vae" else model.audio_encoder
    if role == "audio":
        name, wanted = encoder_id(role, name), encoder_id(role, wanted)
    same = known == sha256 if known is not None else name in (wanted, split_spec(wanted)[0])
    if not same:
        raise UserError(
            f"objective.sync.expert={place} knows another {what}: {name} (sha256 {sha256[:12]}), the model's is "
            f"{wanted} ({(known or 'unknown')[:12]}); train an expert on the model's dataset (task: sync)"
        )
