"""The plan of a study: its steps (corpora and runs), what each is known by, and the commands that make it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from df_eval.study.arms import Arm, arms_of, nested, overrides, with_places
from df_eval.study.config import StudyConfig
from df_eval.study.programs import Programs, printed_config, versions
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import parse_yaml, read_tree

PLAN, RESOLVED = "plan.json", "resolved.json"
_TOGETHER = 4
"""Commands that are asked for their settings at a time: each loads torch."""
PLACE = ("name", "run_dir", "seed")
"""Keys of a resolved df-train configuration that say where it lies, or that the study gives each run itself."""
_CLOCKS = (("budget", "minutes"), ("max_minutes",))
"""Settings by which a run depends on the speed of its machine."""


@dataclass(frozen=True)
class Step:
    """A piece of work with a directory of its own: a corpus, or a run of an arm with one seed.

    Attributes:
        key: ``corpus/HASH`` or ``ARM/seed-N-HASH``.
        place: its directory; of a corpus the dataset.
        commands: by stage (``corpus``, ``train``, ``evaluate``), in their order, what to run.
        trained_in: the run directory that is measured: ``place``, or that of a run with the same training.
        needs: keys of steps to be done first.
    """

    key: str
    place: str
    commands: Mapping[str, list[str]]
    trained_in: str = ""
    needs: tuple[str, ...] = ()
    arm: str = ""
    seed: int = 0

    @property
    def is_run(self) -> bool:
        """Whether it is a run of an arm."""
        return bool(self.arm)

    @property
    def results(self) -> Path:
        """Where df-eval writes about it."""
        return Path(self.place) / "eval"


@dataclass(frozen=True)
class Plan:
    """All steps, in an order in which they could be run.

    Attributes:
        configs: by arm, the resolved configuration of df-train.
        evaluations: by arm, that of df-eval.
    """

    directory: str
    steps: tuple[Step, ...]
    configs: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> list[Step]:
        """The steps that are runs of arms."""
        return [step for step in self.steps if step.is_run]

    def run(self, arm: str, seed: int) -> Step:
        """The run of an arm with a seed."""
        return next(step for step in self.runs if (step.arm, step.seed) == (arm, seed))


def write_plan(plan: Plan) -> None:
    """Write the plan beside the study."""
    atomic_write(Path(plan.directory) / PLAN, json.dumps(asdict(plan), indent=1) + "\n")


def read_plan(directory: Path) -> Plan:
    """The plan of a study that was begun.

    Raises:
        UserError: there is none.
    """
    path = directory / PLAN
    if not path.is_file():
        raise UserError(f"{directory} is no study that was begun ({PLAN} is missing); run df-study CONFIG first")
    tree = json.loads(path.read_text(encoding="utf-8"))
    steps = tuple(Step(**{**step, "needs": tuple(step["needs"])}) for step in tree.pop("steps"))
    return Plan(steps=steps, **tree)


def known_answers(directory: Path) -> dict[str, str]:
    """What df-train and df-eval said of this study's arms before, by what was asked."""
    path = directory / RESOLVED
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged; remove it (it will be written anew)") from error


def make_plan(config: StudyConfig, programs: Programs, known: dict[str, str] | None = None) -> Plan:
    """The plan of a study; asks df-train and df-eval for the resolved configuration of every arm.

    Args:
        known: what they said before, by what was asked; it is added to.

    Raises:
        UserError: they refuse an arm's settings, or its runs would depend on the machine's speed.
    """
    ask = _Asking(programs, {} if known is None else known)
    arms, found = arms_of(config), versions()
    ask.together(arms.values(), config)
    resolved = {name: ask.train(arm) for name, arm in arms.items()}
    measured = {name: ask.evaluate(arm, config) for name, arm in arms.items() if arm.measured}
    for name, tree in resolved.items():
        _check_clock(name, tree)
    steps = _corpora(config.directory, resolved, programs)
    told = _Told(config, programs, arms, resolved, measured, found, dict(steps))
    for seed in config.seeds:
        steps |= _runs_of(seed, told)
    return Plan(str(config.directory), tuple(steps.values()), resolved, measured, found)


def _question(argv: list[str], file: Mapping[str, Any]) -> str:
    return _digest([argv, file, versions()])


def _answer(argv: list[str]) -> str | None:
    try:
        return printed_config(argv)
    except UserError:
        return None


class _Asking:
    """Asks the commands for resolved configurations, each question once."""

    def __init__(self, programs: Programs, known: dict[str, str]) -> None:
        self._programs, self._known = programs, known

    def together(self, arms: Iterable[Arm], config: StudyConfig) -> None:
        """Ask what will be asked of these arms, several commands at a time; a refusal is told by who asks again."""
        asked = [self._training(arm) for arm in arms]
        asked += [self._evaluation(arm, config) for arm in arms if arm.measured]
        named = {_question(argv, file): argv for argv, file in asked}
        unknown = {question: argv for question, argv in named.items() if question not in self._known}
        with ThreadPoolExecutor(_TOGETHER) as pool:
            answers = pool.map(_answer, unknown.values())
            self._known |= {question: said for question, said in zip(unknown, answers) if said is not None}

    def train(self, arm: Arm) -> dict[str, Any]:
        return self._said(arm, *self._training(arm))

    def evaluate(self, arm: Arm, config: StudyConfig) -> dict[str, Any]:
        return self._said(arm, *self._evaluation(arm, config))

    def _training(self, arm: Arm) -> tuple[list[str], Mapping[str, Any]]:
        given = [with_places(line, _tokens(arm)) for line in overrides(arm.train)]
        return [*self._programs.train, "--config", arm.base, *given], read_tree(arm.base)

    def _evaluation(self, arm: Arm, config: StudyConfig) -> tuple[list[str], Mapping[str, Any]]:
        file = config.evaluation.config
        given = [with_places(line, _tokens(arm)) for line in _evaluation_settings(arm, config)]
        return [*self._programs.evaluate, "RUN", *_from_file(file), *given], {} if file is None else read_tree(file)

    def _said(self, arm: Arm, argv: list[str], file: Mapping[str, Any]) -> dict[str, Any]:
        question = _question(argv, file)
        if question not in self._known:
            try:
                self._known[question] = printed_config(argv)
            except UserError as error:
                raise UserError(f"arm {arm.name}: {error}") from error
        return parse_yaml(self._known[question], f"--print-config of arm {arm.name}")


def _tokens(arm: Arm) -> dict[str, str]:
    """What stands for other arms' runs while they have no place yet."""
    return {name: f"/arm:{name}" for name in arm.needs}


def _evaluation_settings(arm: Arm, config: StudyConfig) -> list[str]:
    return [*overrides(nested(config.evaluation.set)), *overrides(arm.evaluation)]


def _from_file(file: str | None) -> list[str]:
    return [] if file is None else ["--config", str(file)]


def _check_clock(name: str, tree: Mapping[str, Any]) -> None:
    for keys in _CLOCKS:
        value: Any = tree
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            raise UserError(
                f"arm {name}: {'.'.join(keys)}={value} makes a run depend on its machine's speed, and arms "
                f"could not be compared; write {'.'.join(keys)}: null under `set:`"
            )


def _corpora(directory: Path, resolved: Mapping[str, Any], programs: Programs) -> dict[str, Step]:
    """The synthetic corpora that the arms' runs would make themselves, each once."""
    steps: dict[str, Step] = {}
    made: dict[str, tuple[str, Any]] = {}
    for name, tree in resolved.items():
        data = tree.get("data")
        synth = data.get("synth") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(synth, dict):
            continue
        root = str(data["root"])
        first, before = made.setdefault(root, (name, synth))
        if before != synth:
            raise UserError(
                f"the arms {first} and {name} make different corpora in {root}; give each its own data.root"
            )
        key = f"corpus/{_digest([root, synth])[:10]}"
        file = directory / "corpora" / f"{key.rpartition('/')[2]}.yaml"
        argv = [*programs.corpus, "--config", str(file), "--out", root]
        steps[key] = Step(key, root, {"corpus": argv})
    return steps


@dataclass(frozen=True)
class _Told:
    """What is known of all arms when their runs are planned."""

    config: StudyConfig
    programs: Programs
    arms: Mapping[str, Arm]
    resolved: Mapping[str, Any]
    measured: Mapping[str, Any]
    versions: Mapping[str, str]
    corpora: Mapping[str, Step]


def _runs_of(seed: int, told: _Told) -> dict[str, Step]:
    """The runs of all arms with one seed, by key."""
    steps: dict[str, Step] = {}
    key_of: dict[str, str] = {}
    trained: dict[str, Step] = {}
    for name, arm in told.arms.items():
        needs = {needed: key_of[needed] for needed in arm.needs}
        training = [_without_place(told.resolved[name]), needs, seed, told.versions]
        key_of[name] = key = f"{name}/seed-{seed}-{_digest([training, told.measured.get(name)])[:10]}"
        place = str(told.config.directory / "runs" / key)
        same = trained.get(_digest(training))
        at = place if same is None else same.place
        first = [same.key] if same is not None else _corpus_of(name, told)
        places = {needed: steps[where].trained_in for needed, where in needs.items()}
        commands = _commands(arm, seed, place, at, places, told)
        steps[key] = Step(key, place, commands, at, tuple(dict.fromkeys([*needs.values(), *first])), name, seed)
        trained.setdefault(_digest(training), steps[key])
    return steps


def _commands(
    arm: Arm, seed: int, place: str, trained_in: str, places: Mapping[str, str], told: _Told
) -> dict[str, list[str]]:
    """A run's commands by stage; one that shares another's training has none of its own."""
    commands: dict[str, list[str]] = {}
    if trained_in == place:
        given = [with_places(line, places) for line in overrides(arm.train)]
        own = [f"seed={seed}", f"run_dir={json.dumps(place)}"]
        commands["train"] = [*told.programs.train, "--config", arm.base, *given, *own]
    if arm.measured:
        given = [with_places(line, places) for line in _evaluation_settings(arm, told.config)]
        argv = [trained_in, *_from_file(told.config.evaluation.config), *given, "--out", f"{place}/eval", "--quiet"]
        commands["evaluate"] = [*told.programs.evaluate, *argv]
    return commands


def _corpus_of(name: str, told: _Told) -> list[str]:
    """The key of the corpus that an arm's run would make itself."""
    data = told.resolved[name].get("data")
    root = data.get("root") if isinstance(data, dict) and isinstance(data.get("synth"), dict) else None
    return [key for key, step in told.corpora.items() if step.place == str(root)]


def _without_place(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in PLACE}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
