"""Build df-models alone, install its wheel into an empty environment, and use it there.

Checks that a downstream project gets a package that is light (no heavy module is imported), complete (a preset builds
and runs one forward), exact (saving and loading gives the same output) and carries its licence.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("transformers", "diffusers", "accelerate", "pydantic", "torchvision", "webdataset", "av", "matplotlib")

PROGRAM = f"""
import sys, tempfile
from importlib import metadata
import torch
import df_models
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, f"importing df_models pulled in {{loaded}}"
torch.manual_seed(0)
model = df_models.DualForce.from_preset("quickstart").eval()
config = model.config
inputs = dict(
    video=torch.randn(1, 3, 16, 8, 8),
    structure=torch.randn(1, 3, 4, config.structure_dim),
    audio=torch.randn(1, 3, 4, config.audio_dim),
    sigma_video=torch.rand(1, 3),
    sigma_structure=torch.rand(1, 3),
    reference_latent=torch.randn(1, 16, 8, 8),
)
with torch.no_grad():
    first = model(**inputs)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        again = df_models.DualForce.from_pretrained(directory).eval()(**inputs)
assert first.video.shape == inputs["video"].shape
assert first.structure.shape == inputs["structure"].shape
assert torch.equal(first.video, again.video) and torch.equal(first.structure, again.structure)
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, f"running a model pulled in {{loaded}}"
licence = [path for path in metadata.files("df-models") if path.name == "LICENSE"]
assert licence and "Apache License" in licence[0].read_text(), "the wheel carries no licence"
assert metadata.metadata("df-models")["License-Expression"] == "Apache-2.0"
print("df-models", df_models.__version__, "from its wheel: light, runs, saves and loads exactly")
"""


def main() -> int:
    """Run the check; return the exit code of the program in the empty environment."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels, venv = Path(scratch, "wheels"), Path(scratch, "venv")
        _run("uv", "build", "--quiet", "--package", "df-models", "--wheel", "--out-dir", str(wheels), cwd=ROOT)
        wheel = next(wheels.glob("df_models-*.whl"))
        _run("uv", "venv", "--quiet", "--python", sys.executable, str(venv))
        requirements = subprocess.run(
            ["uv", "export", "--quiet", "--frozen", "--no-emit-workspace", "--package", "df-models", "--no-dev"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        pinned = Path(scratch, "requirements.txt")
        pinned.write_text(requirements)
        python = str(venv / "bin" / "python")
        _run("uv", "pip", "install", "--quiet", "--python", python, "-r", str(pinned))
        _run("uv", "pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel))
        return subprocess.run([python, "-I", "-c", PROGRAM], cwd=scratch).returncode


def _run(*command: str, cwd: Path | None = None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    subprocess.run(command, cwd=cwd, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
