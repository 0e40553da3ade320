"""What the benchmarks share: the machine's description, its own matrix-multiply rate, dated result files.

Figures are ratios: to another measurement of the same run, or to the matrix-multiply rate measured in it. Seconds
alone say nothing on another machine. On a CPU the clock is this process's own CPU time, on one thread unless told
otherwise, so that other programs on the machine do not count; on CUDA it is wall time after a synchronisation.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from df_models import machine as measured
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory
from df_models.machine import peak_memory as peak_memory

RESULTS = Path(__file__).parent / "results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --preset, --device, --dtype, --threads and --out."""
    parser.add_argument("--preset", default="quickstart", help="preset of df_models (default: quickstart)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32 on the CPU, bfloat16 on CUDA")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")


def resolve(args: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """Return device and dtype of the run and set the thread count; refuse an --out that cannot be written."""
    check_output_directory(args.out)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; use --device cpu")
    torch.set_num_threads(args.threads)
    name = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    return device, DTYPES[name]


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the figures were measured on."""
    described: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described["gpu"] = properties.name
        described["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        described["cuda"] = torch.version.cuda
    return described


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read after it is honest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """Return seconds of the clock that counts on this device (see the module)."""
    synchronize(device)
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def timed(function: Callable[[], Any], device: torch.device, *, repeats: int, warmup: int = 2) -> list[float]:
    """Return the seconds of each of ``repeats`` calls, after ``warmup`` calls that do not count."""
    for _ in range(warmup):
        function()
    seconds = []
    for _ in range(repeats):
        began = clock(device)
        function()
        seconds.append(clock(device) - began)
    return seconds


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the machine's own rate in FLOP/s, by the clock that counts here."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    return measured.matmul_rate(device, dtype, clock=clock)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak: of the CUDA allocator, or of this process's resident memory (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_result(
    out: Path, name: str, args: argparse.Namespace, device: torch.device, figures: dict[str, Any], text: str
) -> Path:
    """Write ``<date>-<name>-<preset>-<device>.json`` and ``.md``; return the Markdown file's path."""
    out.mkdir(parents=True, exist_ok=True)
    date = datetime.date.today().isoformat()
    stem = f"{date}-{name}-{args.preset}-{device.type}"
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_public(sys.argv[1:])])
    described = machine(device)
    record = {"benchmark": name, "date": date, "command": command, "machine": described, **figures}
    atomic_write(out / f"{stem}.json", json.dumps(record, indent=2) + "\n")
    facts = table(("machine", ""), [(key.replace("_", " "), value) for key, value in described.items()])
    atomic_write(
        out / f"{stem}.md",
        f"# {name}: {args.preset} on {device.type}, {date}\n\n`{command}`\n\n{text}\n\n{facts}\n",
    )
    return out / f"{stem}.md"


def _public(arguments: Sequence[str]) -> list[str]:
    """Leave out where the results went: it is a path of this machine."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--out="):
            skip = False
        elif argument == "--out":
            skip = True
        else:
            kept.append(argument)
    return kept


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
