"""What was asked for and will not be, or was not: said, not passed over. Milestones, the profile, the batch's clips."""

from __future__ import annotations

from df_infer.run_dir import RunDir, is_model
from df_train.config import TrainConfig


def of_every_step(config: TrainConfig, clips: int) -> list[str]:
    """A line if a step's batch is larger than a training split of so many clips."""
    if clips >= config.data.batch_size:
        return []
    return [
        f"data.batch_size: a step takes {config.data.batch_size} clips of {clips}, so some come more than once in it"
    ]


def at_the_start(config: TrainConfig, step: int) -> list[str]:
    """Lines about what a run that goes on from `step` cannot do any more, or will not with so many steps."""
    run, end = RunDir(config.directory), config.optim.steps
    milestones = [at for at in config.checkpoint.milestones if not is_model(run.milestone(at))]
    profiled = [] if config.profile is None else [config.profile.start]
    told = []
    for name, steps in (("checkpoint.milestones", milestones), ("profile.start", profiled)):
        done = [at for at in steps if at < step or (at == step and name == "profile.start")]
        beyond = [at for at in steps if at > end]
        if done and step:
            told.append(f"{name}: the run goes on from step {step}, so nothing is written at {_named(done)}")
        if beyond:
            told.append(f"{name}: the run ends at step {end}, so nothing is written at {_named(beyond)}")
    return told


def at_the_end(config: TrainConfig, step: int) -> list[str]:
    """Lines about what was not reached by a run that a time limit or a time budget ended at `step`."""
    end = config.optim.steps
    milestones = [at for at in config.checkpoint.milestones if step < at <= end]
    profiled = [] if config.profile is None or not step < config.profile.start <= end else [config.profile.start]
    named = (("checkpoint.milestones", milestones), ("profile.start", profiled))
    return [f"{name}: the run ended at step {step}, before {_named(steps)}" for name, steps in named if steps]


def _named(steps: list[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}"
