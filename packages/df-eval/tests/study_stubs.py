"""Stand-ins for df-train and df-eval, as commands: they print configurations, write runs and results, fail and dawdle
as they are told, and take milliseconds.

    python study_stubs.py train --config FILE key=value ... [--print-config]
    python study_stubs.py eval RUN key=value ... --out DIR [--print-config]
    python study_stubs.py corpus --config FILE --out DIR
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path

STEPS = 3
"""That a training takes, each with a checkpoint."""
OWNED = {"format": 1, "written_by": "df-train", "version": "0", "dataset": {"root": "", "splits": {}}}


def settings(argv: list[str]) -> dict[str, object]:
    """Dotted overrides on top of the file, which is JSON."""
    tree: dict[str, object] = {}
    if "--config" in argv:
        tree = json.loads(Path(argv[argv.index("--config") + 1]).read_text())
    for text in argv:
        if "=" in text:
            key, _, value = text.partition("=")
            *above, last = key.split(".")
            place = tree
            for name in above:
                place = place.setdefault(name, {})  # type: ignore[assignment]
            place[last] = json.loads(value)
    return tree


def refuse(message: str) -> None:
    print(f"stub: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def note(text: str) -> None:
    """One line for each command that really ran, for tests to count."""
    with open("calls.txt", "a") as file:
        file.write(text + "\n")


def train(argv: list[str]) -> None:
    config = settings(argv)
    if "mistake" in config:
        refuse("'mistake' is no setting (did you mean 'lr'?)")
    if "--print-config" in argv:
        print(json.dumps({"run_dir": None, **config}))
        return
    run = Path(str(config["run_dir"]))
    saved = sorted(run.glob("checkpoints/step-*/trainer.json"))
    if (run / "model" / "model.safetensors").is_file():
        refuse("holds a finished run")
    if (run / "metrics.jsonl").exists() and not saved and "--fresh" not in argv:
        refuse("stopped before its first checkpoint; say --fresh")
    note(f"train {run}")
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps(OWNED))
    if config.get("fails") and not Path("mended").exists():
        print("loss is not finite")
        raise SystemExit(1)
    if needed := config.get("start_from"):
        assert (Path(str(needed)) / "model.safetensors").is_file(), "the arm that it needs is not done"
    taken = take_steps(run, json.loads(saved[-1].read_text()) if saved else [], float(config.get("sleep", 0)))  # type: ignore[arg-type]
    (run / "config.yaml").write_text(json.dumps(config | {"taken": taken}))
    (run / "model").mkdir(exist_ok=True)
    (run / "model" / "config.json").write_text("{}")
    (run / "model" / "model.safetensors").write_text("")


def take_steps(run: Path, taken: list[int], sleep: float) -> list[int]:
    """All steps that are left; a checkpoint holds those that were taken and is renamed when it is whole."""
    for step in range(len(taken), STEPS):
        (run / "metrics.jsonl").touch()
        time.sleep(sleep / STEPS)
        taken.append(step)
        part = run / "checkpoints" / f"step-{len(taken)}.tmp"
        part.mkdir(parents=True, exist_ok=True)
        (part / "trainer.json").write_text(json.dumps(taken))
        part.rename(part.with_suffix(""))
    return taken


def evaluate(argv: list[str]) -> None:
    config = {"clips": 4, "frames": [33]} | settings(argv)
    if "--print-config" in argv:
        print(json.dumps(config))
        return
    run, out = Path(argv[0]), Path(argv[argv.index("--out") + 1])
    note(f"eval {out.parent}")
    trained = json.loads((run / "config.yaml").read_text())
    out.mkdir(parents=True, exist_ok=True)
    time.sleep(float(trained.get("sleep", 0)))
    chance = f"{trained['seed']} {trained.get('effect')}"
    lines = []
    for clip in range(int(config["clips"])):  # type: ignore[call-overload]
        noise = zlib.crc32(f"{chance} {clip}".encode()) / 2**32
        value = 0.5 + 0.05 * clip + 0.02 * trained["seed"] + trained.get("effect", 0) + 0.01 * noise
        value += config.get("bonus", 0)  # type: ignore[operator]
        value += 0 if trained["taken"] == [*range(STEPS)] else 1
        pairs = {"lip_sync": value, "motion_ratio": 1 - value, "still_mouth": value / 2}
        metrics = {name: {"value": v, "numerator": v, "denominator": 1.0} for name, v in pairs.items()}
        lines.append(
            {"frames": 33, "row": "generated", "clip": f"val-{clip}", "person": f"p-{clip}", "metrics": metrics}
        )
    (out / "per_clip.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    protocol = {"clips_from": "stub", "reader": "stub", "device": "none"}
    (out / "metrics.json").write_text(json.dumps({"lengths": {"33": {}}, "protocol": protocol}))


def corpus(argv: list[str]) -> None:
    out = Path(argv[argv.index("--out") + 1])
    note(f"corpus {out}")
    assert not (out / "train").exists(), "made twice"
    time.sleep(0.05)
    (out / "train").mkdir(parents=True)


if __name__ == "__main__":
    {"train": train, "eval": evaluate, "corpus": corpus}[sys.argv[1]](sys.argv[2:])
