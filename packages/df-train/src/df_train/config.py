"""Everything a training run can be told, with its defaults; the resolved values are written into the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from df_data.reading.batch import StructureSource
from df_data.reading.peek import split_location
from df_data.reading.source import is_remote
from df_data.synth.config import SynthConfig
from df_infer.config import RolloutConfig
from df_models.device import check_device_name
from df_models.flow import HistoryMode
from df_models.machine import PrecisionName
from df_models.settings import FrozenModel, Location, merge
from df_train.distill.config import DistillConfig
from df_train.tasks import TASKS, TaskName
from df_train.validation.config import ValidationConfig

_PRECISIONS: dict[str, PrecisionName] = {"auto": "auto", "on": "bfloat16", "off": "float32"}

MOST_BUCKETS = 8
"""Lengths of clips in one run (`df_models.attention.masks` keeps 32 masks, and a length takes up to four)."""


def _checkpointing_of(value: object) -> object:
    """`sharding.checkpointing` was a switch once, and runs have recorded it as one."""
    return {True: "every", False: "none"}[value] if isinstance(value, bool) else value


def _compile_of(value: object) -> object:
    """`sharding.compile` was a switch once, too."""
    return {True: "layers", False: "none"}[value] if isinstance(value, bool) else value


def _rising_steps(steps: tuple[int, ...]) -> tuple[int, ...]:
    if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
        raise ValueError("give rising steps, from 1 on")
    return steps


def _rising(bends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    places = [step for step, _ in bends]
    if places != sorted(set(places)) or any(step < 0 or step >= steps for step, steps in bends):
        raise ValueError("give pairs [step, steps] of rising steps, each before its steps")
    return bends


class ModelConfig(FrozenModel):
    """The architecture: a preset of df-models and fields of its configuration to change.

    Attributes:
        preset: name of a preset (`df-models describe` lists them).
        start_from: a saved model (a directory, such as another run's `model/` or what `df-models convert-wan` wrote, or
            a Hub id). Its weights are the start; parts that the new model has and it lacks start afresh, and are named.
            One that was trained keeps the structure statistics and the FLAME head that it was trained with.
        architecture: with `start_from`, what `overrides` change: `start`, the saved model's configuration, which takes
            the preset's place, or `preset`, so that the preset says what the model is, and only weights come from the
            saved one.
        leave_out: parts of the saved model whose weights are not taken (`df_train.begin.PARTS`): those that the new
            model has no place for, or that are to start afresh.
        overrides: fields of the model's configuration (`df_models.DualForceConfig`) to change, such as `num_layers`.
    """

    preset: str = "quickstart"
    start_from: Location | None = None
    architecture: Literal["start", "preset"] = "start"
    leave_out: tuple[str, ...] = ()
    overrides: dict[str, Any] = Field(default_factory=dict)


class AdapterConfig(FrozenModel):
    """A low-rank adapter (LoRA) beside the weights of `model.start_from`, which then stay as they are.

    Needs `df-train[peft]`. The run's `model/` is the whole model with the adapter added, and `model/adapter/` the
    adapter alone.

    Attributes:
        kind: `none` trains all weights, `lora` the adapter alone.
        rank: of the matrices, the adapter's size.
        alpha: their product is added to a layer's weight at `alpha / rank`.
        dropout: share of a layer's inputs that the adapter misses in training; what is drawn depends on the number of
            processes.
        targets: layers to put it beside, by how their names end; of the default's, those that the model has: all
            attention (also of bridge, audio and reference) and MLPs.
    """

    kind: Literal["none", "lora"] = "none"
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(default=("q", "k", "v", "o", "k_img", "v_img", "ffn.0", "ffn.2"), min_length=1)


class DataConfig(FrozenModel):
    """Where the clips come from, how they are cut and how many make a step.

    Attributes:
        root: a directory that holds `train/` and `val/`, or a URL or pipe under which they are found, as
            `df_data.ShardReader` takes them (`https://host/data`, `pipe:aws s3 cp s3://bucket/data/{} -`).
        synth: the synthetic corpus to make in `root` if it is not there.
        batch_size: clips of one optimizer step over all processes, so a run on two processes takes the same steps as a
            run on one.
        accumulate: passes that each process's part of a step is split into to save memory.
        num_frames: latent frames that clips are cut to; null takes them whole.
        buckets: several such lengths instead. All clips of a pass have one of them, and each clip is cut to the longest
            that it fills. At most 8, since a model keeps its attention masks for that many.
        start: `anchored` clips begin at their stored clip's start, `marked` ones anywhere in it (`df_train.crops`).
        structure: which vectors of the clips the structure stream is: `structure`, the dataset's own, or `flame`, the
            motion part of its FLAME vectors (expression, rotation, jaw, camera).
        on_error: `stop` at a damaged shard or sample, or `skip` it and count it in `data/skipped`.
        verify: check the sha256 of shards that lie on a disk (those that are fetched always are checked).
        num_workers: threads of each process that read ahead.
        cache_bytes: memory of each process for clips that were read before.
        cache_dir: where the shards of a URL are kept on this machine.
        cache_dir_bytes: how much of them is kept there.
        stream_bytes: memory of each process for the shards of a URL without a `cache_dir`.
    """

    root: Location = Location("data/synth")
    synth: SynthConfig | None = None
    batch_size: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    num_frames: int | None = Field(default=None, ge=2)
    buckets: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=MOST_BUCKETS)
    start: Literal["anchored", "marked"] = "anchored"
    structure: StructureSource = "structure"
    on_error: Literal["stop", "skip"] = "stop"
    verify: bool = False
    num_workers: int = Field(default=0, ge=0)
    cache_bytes: int = Field(default=2 << 30, ge=0)
    cache_dir: Location | None = None
    cache_dir_bytes: int = Field(default=256 << 30, ge=1)
    stream_bytes: int = Field(default=8 << 30, ge=1)

    @field_validator("root", mode="before")
    @classmethod
    def _as_text(cls, root: object) -> object:
        return str(root).removeprefix("file://") if isinstance(root, str | Path) else root

    @field_validator("buckets")
    @classmethod
    def _lengths(cls, buckets: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if buckets is not None and (min(buckets) < 2 or list(buckets) != sorted(set(buckets))):
            raise ValueError("give rising lengths of at least 2 latent frames")
        return buckets

    @model_validator(mode="after")
    def _fit_together(self) -> DataConfig:
        if self.num_frames is not None and self.buckets is not None:
            raise ValueError("num_frames and buckets both say how long clips are; give one of them")
        if self.start == "marked" and self.num_frames is None and self.buckets is None:
            raise ValueError("start=marked needs num_frames or buckets: a whole clip has only one start")
        if self.remote and self.synth is not None:
            raise ValueError("synth makes a corpus in a directory, but root is a URL; set synth=null, or another root")
        if self.remote and self.root.startswith("pipe:") and "{}" not in self.root:
            raise ValueError("the pipe in root does not say where a file's name belongs; write {} there")
        if self.cache_dir is not None and not self.remote:
            raise ValueError("cache_dir is for URLs and pipes, and root is a directory; leave cache_dir out")
        return self

    @property
    def remote(self) -> bool:
        """Whether `root` is a URL or a pipe."""
        return is_remote(self.root)

    def split(self, name: str) -> str:
        """Where a split is: a directory, URL or pipe."""
        return split_location(self.root, name)

    @property
    def cut(self) -> str:
        """How clips are cut, in the words of the configuration, for messages."""
        return f"data.num_frames={self.num_frames}" if self.buckets is None else f"data.buckets={list(self.buckets)}"


class HistorySettings(FrozenModel):
    """What the frames before those being learnt look like in training (`df_models.flow.history`).

    Attributes:
        mode: `independent`: every frame its own noise level. `clean_past`: the same, but sometimes all frames before a
            random one are clean. `teacher_forcing`: a separate, little noised copy of the true past. `error_recycling`:
            the same, and that copy sometimes carries errors that the model made before. `one_level`: each stream has
            one noise level for all frames of a clip; the model then makes whole clips only (`rollout.chunk: null`).
        clean_past_probability: `clean_past`: the share of clips whose frames before a random one are clean.
        context_noise_max: the last two modes: the highest noise level of the copy.
        error_probability: `error_recycling`: the share of clips whose copy carries errors.
        error_bank: `error_recycling`: how many errors are kept, the newest.
    """

    mode: HistoryMode = "clean_past"
    clean_past_probability: float = Field(default=0.3, ge=0, le=1)
    context_noise_max: float = Field(default=0.1, ge=0, le=1)
    error_probability: float = Field(default=0.9, ge=0, le=1)
    error_bank: int = Field(default=256, ge=1)


class FlameLossConfig(FrozenModel):
    """The FLAME head on the predicted clean structure; its weight falls along a half cosine.

    Attributes:
        weight: of the loss at step 0; 0 for none.
        weight_end: of the loss after `decay_steps`.
        decay_steps: optimizer steps from the one to the other; a time budget scales what is left of them as it does
            `optim.steps`.
        bends: written by a time budget: pairs of a step and of the `decay_steps` until then.
    """

    weight: float = Field(default=0.1, ge=0)
    weight_end: float = Field(default=0.02, ge=0)
    decay_steps: int = Field(default=1000, ge=0)
    bends: tuple[tuple[int, int], ...] = ()

    @field_validator("bends")
    @classmethod
    def _in_order(cls, bends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return _rising(bends)


class SyncLossConfig(FrozenModel):
    """The frozen lip-sync expert on the predicted clean mouth region (`df_train.sync`).

    Attributes:
        weight: of the loss; 0 for none. The plan's is 0.3.
        expert: the directory that `task: sync` wrote, a run's `expert/`.
        sigma_max: noise level, as the mean of a window's frames, up to which windows count. 1 counts all: the expert
            reads the mouths that a trained quickstart model predicts at every level (`benchmarks/sync.py`); less suits
            a model whose predictions from high noise are a blur.
        sha256: of the expert; written by the run, which then refuses to go on with another one.
    """

    weight: float = Field(default=0.0, ge=0)
    expert: Location | None = None
    sigma_max: float = Field(default=1.0, gt=0, le=1)
    sha256: str | None = None

    @model_validator(mode="after")
    def _named(self) -> SyncLossConfig:
        if self.weight > 0 and self.expert is None:
            raise ValueError("weight is above 0, but expert names no lip-sync expert; train one with task: sync")
        return self


def _group(names: object) -> object:
    return (names,) if isinstance(names, str) else names


class GivenFieldsConfig(FrozenModel):
    """Named fields of the structure that are given clean in a share of the clips (`df_train.given`).

    Attributes:
        share: of the clips.
        fields: names of the model's structure layout (`pitch`, `expression`), or lists of such that are only given
            together (`[[pitch, yaw, roll], expression]`); a clip is given one or more of them, at random.
    """

    share: float = Field(default=0.0, ge=0, le=1)
    fields: tuple[Annotated[tuple[str, ...], BeforeValidator(_group), Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _named(self) -> GivenFieldsConfig:
        if self.share > 0 and not self.fields:
            raise ValueError("share is above 0, but fields name nothing to give; name fields of the structure")
        return self


class ObjectiveConfig(FrozenModel):
    """Noise levels and losses.

    Attributes:
        video_shift: Wan's shift of the video's noise levels.
        structure_tail: share of frames whose structure gets a noise level above the model's `sigma_structure_max`.
        start_clean: of the clips whose reference image is their first frame, the share whose first frame is given
            clean, as in generation that starts on the portrait.
        video_weight: weight of the video's loss.
        structure_weight: weight of the structure's loss.
        mouth_weight: extra weight of the video cells in the mouth box (0: all cells weigh the same).
        drop_audio: share of clips that are learnt without audio, which guidance on it needs.
        drop_reference: share of clips that are learnt without the reference image.
        drop_text: share of clips that are learnt without text, which guidance on it needs: zero rows, no encoded
            empty prompt, so that no text encoder is needed to make it.
        shorten_audio: share of clips that hear only a random part of the model's `audio_future`, from none of it to
            all, so that `rollout.audio_future` can be less.
        give_structure: share of clips whose structure is given clean, as a whole, and not learnt there, which motion
            transfer needs. 1: structure is a condition; the model learns to make none, and `rollout.structure_from`
            says where it comes from.
        give_fields: single fields of the structure instead, which control needs; the model must have
            `model.overrides.structure_known=true`.
        extra: weights of losses that were added to `df_train.objective.LOSSES` without a setting of their own, by
            their names.
    """

    history: HistorySettings = HistorySettings()
    video_shift: float = Field(default=1.0, gt=0)
    structure_tail: float = Field(default=0.1, ge=0, le=1)
    start_clean: float = Field(default=0.5, ge=0, le=1)
    video_weight: float = Field(default=1.0, ge=0)
    structure_weight: float = Field(default=0.5, ge=0)
    flame: FlameLossConfig = FlameLossConfig()
    mouth_weight: float = Field(default=0.0, ge=0)
    drop_audio: float = Field(default=0.1, ge=0, le=1)
    drop_reference: float = Field(default=0.0, ge=0, le=1)
    drop_text: float = Field(default=0.1, ge=0, le=1)
    shorten_audio: float = Field(default=0.0, ge=0, le=1)
    give_structure: float = Field(default=0.0, ge=0, le=1)
    give_fields: GivenFieldsConfig = GivenFieldsConfig()
    sync: SyncLossConfig = SyncLossConfig()
    extra: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_gift(self) -> ObjectiveConfig:
        if self.give_structure + self.give_fields.share > 1:
            raise ValueError("give_structure and give_fields.share are shares of other clips; together at most 1")
        return self


class OptimConfig(FrozenModel):
    """AdamW with linear warm-up and a cosine down to a floor. Steps are optimizer steps.

    Attributes:
        steps: of the whole run.
        lr: peak of the learning rate.
        warmup: steps until the peak.
        floor: learning rate at the last step, as a share of the peak.
        betas: decay rates of AdamW's two moments.
        eps: AdamW's epsilon.
        weight_decay: AdamW's decoupled decay.
        clip: largest norm of the gradient; a larger one is scaled down to it.
        max_skips: steps in a row that may be skipped because their gradient is not finite; one more ends the run (0:
            the first does). On a GPU this is looked at where figures are logged.
        bends: written by a time budget (`df_train.budget`): pairs of a step and of the `steps` that it was bound
            for until then.
    """

    steps: int = Field(default=1200, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=50, ge=0)
    floor: float = Field(default=0.05, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    max_skips: int = Field(default=3, ge=0)
    bends: tuple[tuple[int, int], ...] = ()

    @field_validator("bends")
    @classmethod
    def _in_order(cls, bends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return _rising(bends)


class BudgetConfig(FrozenModel):
    """A time budget for the whole command (`df_train.budget`); off without `minutes`.

    The training clips of `data.synth` and `optim.steps` are fitted to it, with their configured numbers as the upper
    bound. What was chosen is written into the run's `config.yaml`, which repeats the run without a clock.

    Attributes:
        minutes: from the start of `df-train` to its last line.
        measure: whether clips and steps are still to be chosen; a run writes `false` beside what it chose.
        full_clips: clips that there would have been in time enough; written by the run.
        full_steps: steps that there would have been in time enough; written by the run.
    """

    minutes: float | None = Field(default=None, gt=0)
    measure: bool = True
    full_clips: int | None = Field(default=None, ge=1)
    full_steps: int | None = Field(default=None, ge=1)


class EmaConfig(FrozenModel):
    """The moving average of the weights, which is what is exported.

    Attributes:
        decay: of each step; early on it follows faster, by `(1 + step) / (10 + step)`.
    """

    decay: float = Field(default=0.995, ge=0, lt=1)


class PrecisionConfig(FrozenModel):
    """What is computed in; parameters stay float32 in any case.

    Attributes:
        bf16: `auto` computes in bfloat16 where the device has matrix instructions for it (AMX, AVX-512 BF16, GPUs from
            compute capability 8.0 on) and in float32 elsewhere.
        float8: matrix products of the layers in float8 (`df_train.float8`), for GPUs from compute capability 8.9 on;
            needs the extra `df-train[float8]`.
    """

    bf16: Literal["auto", "on", "off"] = "auto"
    float8: bool = False

    @property
    def name(self) -> PrecisionName:
        """The setting as `df_models.machine.choose_precision` takes it."""
        return _PRECISIONS[self.bf16]


class ShardingConfig(FrozenModel):
    """How parameters are spread over processes and layers are computed: memory against time.

    None of it changes a loss by more than the order of additions does, nor what a checkpoint holds.

    Attributes:
        group: what FSDP2 gathers at once: the whole model, or block by block (`auto`: from 50 million parameters, and
            with `prefetch`).
        replicate: copies of the sharded model (HSDP): parameters are sharded over the processes divided by it, and
            gradients summed over the copies. As many as there are machines keeps gathering inside of each. 1: sharded
            over all.
        reshard_after_forward: whether a block's gathered parameters are let go after its forward pass, and gathered
            again in the backward pass: less memory, more traffic. What is in no block stays gathered either way.
        prefetch: blocks that are gathered ahead, in both passes; 0 leaves it to FSDP2, which gathers one ahead.
        offload: keep parameters, gradients and AdamW's moments in the host's memory, and update them there; what
            computes holds one group of gathered parameters. Slow: parameters and gradients cross over at every step.
        checkpointing: compute layers anew in the backward pass and keep less: `none`, `every` layer, or every n-th one
            (a number): the more layers, the less memory and the more time. `true` and `false` mean `every` and `none`.
        compile: compile the `layers` with `torch.compile`, or `none`: about a minute at the start, faster steps on a
            GPU. `true` and `false` mean `layers` and `none`.
    """

    group: Literal["auto", "model", "block"] = "auto"
    replicate: int = Field(default=1, ge=1)
    reshard_after_forward: bool = True
    prefetch: int = Field(default=0, ge=0)
    offload: bool = False
    checkpointing: Annotated[
        Literal["none", "every"] | Annotated[int, Field(ge=1)], BeforeValidator(_checkpointing_of)
    ] = "none"
    compile: Annotated[Literal["none", "layers"], BeforeValidator(_compile_of)] = "none"

    @model_validator(mode="after")
    def _blocks_to_prefetch(self) -> ShardingConfig:
        if self.prefetch and self.group == "model":
            raise ValueError(f"prefetch={self.prefetch} gathers blocks ahead, but group=model has one group; set block")
        return self

    @property
    def recomputed(self) -> int:
        """Every which layer is computed anew; 0 for none."""
        wish = self.checkpointing
        return wish if isinstance(wish, int) else {"none": 0, "every": 1}[wish]


class ResumeConfig(FrozenModel):
    """Checkpoints to resume from.

    Attributes:
        every: steps from one to the next.
        keep: how many are kept, the newest.
        resume: `auto` continues an unfinished run from its newest whole checkpoint; `never` refuses to touch it.
    """

    every: int = Field(default=200, ge=1)
    keep: int = Field(default=2, ge=1)
    resume: Literal["auto", "never"] = "auto"


class CheckpointConfig(ResumeConfig):
    """Checkpoints to resume from, and models to keep.

    Attributes:
        milestones: rising steps, `[1000, 5000]`, after which the averaged model is also exported, to `models/step-N/`,
            for good. A checkpoint is saved with each, so that a run that goes on takes no such step again, and one that
            is there is not written anew.
        asynchronous: write checkpoints beside training, which then waits only for a copy of its state in host memory
            (16 bytes per parameter, over all processes). The next one waits for the last; the end of the run and
            milestones do, too.
    """

    asynchronous: bool = False
    milestones: Annotated[tuple[int, ...], AfterValidator(_rising_steps)] = ()


class LogConfig(FrozenModel):
    """Where figures go, besides `metrics.jsonl`.

    Attributes:
        every: steps from one line to the next.
        wandb: Weights & Biases.
        wandb_project: its project.
        tensorboard: write event files for TensorBoard into the run.
    """

    every: int = Field(default=10, ge=1)
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "dualforce"
    tensorboard: bool = False


class ProfileConfig(FrozenModel):
    """A look at some steps by torch's profiler, written into the run's `profile/`.

    Each process writes a Chrome trace (`trace-0.json`, which https://ui.perfetto.dev shows) and, on CUDA, a snapshot of
    the allocator (`memory-0.pickle`, which https://docs.pytorch.org/memory_viz shows). Those steps are slower.

    Attributes:
        start: the first step that is looked at, from 1; the first ones of a run still allocate and compile.
        steps: how many.
    """

    start: int = Field(default=10, ge=1)
    steps: int = Field(default=3, ge=1)


class SampleConfig(FrozenModel):
    """Sample videos of validation clips.

    Attributes:
        every: steps from one set to the next (0: only at the end).
        clips: how many; 0 for none.
        frames: pixel frames of each, 1 + 4 n.
    """

    every: int = Field(default=0, ge=0)
    clips: int = Field(default=2, ge=0)
    frames: int = Field(default=33, ge=5)

    @field_validator("frames")
    @classmethod
    def _whole_latents(cls, frames: int) -> int:
        if (frames - 1) % 4:
            raise ValueError(f"{frames} pixel frames are not 1 + 4 n")
        return frames


class TrainConfig(FrozenModel):
    """One training run.

    Attributes:
        task: what is trained: `model`, all that the model has; `video`, the video tower alone, on clips that need
            neither structure nor audio; or `distill`, a student of few steps (`df_train.tasks`).
        name: of the run: letters, digits, `.`, `_`, `-`.
        run_dir: directory of the run; null means `runs/<name>`.
        seed: keys the initial weights, the order of clips and all noise.
        device: `auto` takes a GPU if there is one.
        max_minutes: ends the run cleanly, with a model, after that many minutes of steps (over all resumes); the
            learning rate's schedule is in steps and does not know of it.
        hang_minutes: ends all of several processes when training gets no further for that long, and names those that
            the others wait for (`df_train.watch`); longer than the longest save. null leaves it to torch's limits.
        budget: fits data, steps and schedule to a time.
        profile: which steps to profile; null for none.
        distill: for `task: distill`, how the student learns.
        rollout: how sample videos are generated, and the defaults of evaluation and generation.
    """

    task: TaskName = "model"
    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    run_dir: Location | None = None
    seed: int = Field(default=0, ge=0)
    device: Annotated[str, AfterValidator(check_device_name)] = "auto"
    max_minutes: float | None = Field(default=None, gt=0)
    hang_minutes: float | None = Field(default=10.0, gt=0)
    budget: BudgetConfig = BudgetConfig()
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()
    precision: PrecisionConfig = PrecisionConfig()
    sharding: ShardingConfig = ShardingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    validation: ValidationConfig = ValidationConfig()
    sample: SampleConfig = SampleConfig()
    profile: ProfileConfig | None = None
    distill: DistillConfig = DistillConfig()
    rollout: RolloutConfig = RolloutConfig()

    @model_validator(mode="before")
    @classmethod
    def _of_the_task(cls, tree: Any) -> Any:
        task = TASKS.get(tree.get("task", "model")) if isinstance(tree, dict) else None
        return tree if task is None or not task.defaults else merge(dict(task.defaults), tree)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.optim.warmup >= self.optim.steps:
            raise ValueError(f"optim.warmup ({self.optim.warmup}) must be less than optim.steps ({self.optim.steps})")
        if self.data.batch_size % self.data.accumulate:
            raise ValueError(
                f"data.batch_size ({self.data.batch_size}) must be a multiple of data.accumulate "
                f"({self.data.accumulate})"
            )
        if self.adapter.kind != "none" and self.model.start_from is None:
            raise ValueError(f"adapter.kind={self.adapter.kind} is for a trained model; name it in model.start_from")
        if self.adapter.kind != "none" and self.precision.float8:
            raise ValueError("precision.float8 is for training all weights; set it to false beside an adapter")
        if self.data.remote and self.sample.clips:
            raise ValueError(
                f"sample.clips={self.sample.clips}: sample videos are made of validation clips in a directory, but "
                "data.root is a URL; set sample.clips=0"
            )
        return self

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path("runs") / self.name if self.run_dir is None else self.run_dir.path
