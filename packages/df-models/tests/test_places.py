"""Places to write to, locks, SIGTERM, missing packages and full disks: what every command shares."""

from __future__ import annotations

import argparse
import errno
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from df_models.cli_support import MachineError, command, missing_package, run_cli
from df_models.convert.command import convert_wan
from df_models.errors import UserError
from df_models.files import (
    atomic_path,
    atomic_write,
    check_output,
    check_output_directory,
    check_owned,
    mark_owned,
    remove_leftovers,
)
from df_models.locks import one_writer

LONGEST = "n" * 251 + ".mp4"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot be written; permissions do not stop root."""
    place = tmp_path / "read-only"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True).returncode:
        place.chmod(0o555)
        if os.access(place, os.W_OK):
            pytest.skip("no place here is read-only for root")
    yield place
    subprocess.run(["umount", "-l", str(place)], capture_output=True)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "full"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_the_longest_name_can_be_written_and_a_longer_one_is_told(tmp_path: Path) -> None:
    check_output(tmp_path / LONGEST)
    atomic_write(tmp_path / LONGEST, b"x")
    assert os.listdir(tmp_path) == [LONGEST]
    for write in (check_output, lambda path: atomic_write(path, b"x"), check_output_directory):
        with pytest.raises(UserError, match="256 bytes; at most 255"):
            write(tmp_path / ("n" + LONGEST))
    atomic_write(tmp_path / ("a." + "s" * 253), b"x")


def test_the_temporary_name_keeps_the_suffix_and_a_killed_writer_s_is_found_again(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.mp4") as temporary:
        assert temporary.suffix == ".mp4" and temporary.name.startswith(".")
        (tmp_path / "left").hardlink_to(temporary)
        name = temporary.name
    (tmp_path / "left").rename(tmp_path / name)
    (tmp_path / ".mine.tmp").touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "a.mp4"]


@pytest.mark.parametrize("kind", ["itself", "other-spelling", "symlink", "symlink-of-input", "hard-link"])
def test_an_output_that_is_an_input_is_refused_by_whatever_name(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "speech.mp4"
    source.write_bytes(b"speech")
    out = tmp_path / "out.mp4"
    given = source
    if kind == "itself":
        out = source
    elif kind == "other-spelling":
        (tmp_path / "d").mkdir()
        out = tmp_path / "d" / ".." / "speech.mp4"
    elif kind == "symlink":
        out.symlink_to(source)
    elif kind == "symlink-of-input":
        given = tmp_path / "link.mp4"
        given.symlink_to(source)
        out = source
    else:
        out.hardlink_to(source)
    with pytest.raises(UserError, match="is read as an input"):
        check_output(out, inputs=[tmp_path / "missing", given])
    check_output(tmp_path / "another.mp4", inputs=[given])


def test_a_directory_that_is_an_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match="is read as an input"):
        check_output_directory(tmp_path / "link", inputs=[tmp_path])
    check_output_directory(tmp_path / "new" / "deep", inputs=[tmp_path])
    assert os.listdir(tmp_path) == ["link"]


def test_what_cannot_be_written_is_told_before_any_work(tmp_path: Path, read_only: Path) -> None:
    (tmp_path / "file").touch()
    for check, path, why in (
        (check_output, read_only / "a.mp4", "read-only|no permission"),
        (check_output_directory, read_only / "new" / "run", "read-only|no permission"),
        (check_output, tmp_path, "is a directory"),
        (check_output, tmp_path / "none" / "a.mp4", "create it first"),
        (check_output, Path("/dev/null"), "no ordinary file"),
        (check_output_directory, tmp_path / "file" / "run", "not a directory"),
    ):
        with pytest.raises(UserError, match=why) as told:
            check(path)
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"read-only|no permission"), one_writer(read_only / "run", "x"):
        pass


def test_a_conversion_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target, why in ((tmp_path / "file" / "model", "not a directory"), (tmp_path / ("n" * 256), "at most 255")):
        with pytest.raises(UserError, match=why):
            convert_wan(argparse.Namespace(source="none", target=str(target)), {})


def test_a_program_replaces_only_what_it_wrote(tmp_path: Path) -> None:
    check_owned(tmp_path / "new", "x", ["videos"])
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match="holds videos/, which x did not write"):
        check_owned(tmp_path, "x", ["videos", "plots"])
    check_owned(tmp_path, "x", ["plots"])
    mark_owned(tmp_path, "x")
    check_owned(tmp_path, "x", ["videos"])
    with pytest.raises(UserError):
        check_owned(tmp_path, "another", ["videos"])


def test_a_place_with_one_writer_names_who_it_is_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with one_writer(place, "df-x"):
        who = rf"another process is writing to .*: df-x \(process {os.getpid()} on "
        with pytest.raises(UserError, match=who), one_writer(place, "df-y"):
            pass
    assert not (tmp_path / "a").exists()
    with one_writer(place, "df-x"):
        (place / "kept").touch()
    assert os.listdir(place) == ["kept"]


@pytest.mark.parametrize(
    ("begin", "sent", "code"), [("", "SIGTERM", 143), ("multiprocessing", "SIGTERM", 143), ("", "SIGHUP", 129)]
)
def test_a_signal_ends_a_command_and_leaves_no_temporary_file(tmp_path: Path, begin: str, sent: str, code: int) -> None:
    text = (
        "import signal,sys,time\nfrom df_models.cli_support import run_cli\nfrom df_models.files import atomic_path\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it is ignored, and stays so
        "def main(argv):\n with atomic_path(sys.argv[1]):\n  print('writing', flush=True)\n  time.sleep(60)\n"
        "sys.exit(run_cli(main, 'df-x', []))"
    )
    if begin:
        text = text.replace("  print", "  import os\n  if os.fork(): time.sleep(60)\n  print")
    out = tmp_path / "a.mp4"
    command = subprocess.Popen(
        [sys.executable, "-c", text, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert command.stdout is not None and command.stdout.readline() == "writing\n"
    os.killpg(command.pid, getattr(signal, sent))
    _, error = command.communicate(timeout=30)
    assert command.returncode == code and error == f"df-x: error: ended by {sent}\n"
    assert not os.listdir(tmp_path)


def _raises(error: BaseException) -> Callable[[list[str]], int]:
    def main(argv: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MachineError("no room at all"), 3, "no room at all"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 3, "the disk is full (/x/y)"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), 2, "/x/y: Read-only file system"),
        (OSError(errno.EFBIG, "File too large", "/x/y"), 3, "/x/y: File too large"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "/x/y: Permission denied"),
        (ModuleNotFoundError("No module named 'av'", name="av"), 3, "pip install 'df-infer[io]'"),
        (KeyboardInterrupt("it goes on"), 130, "it goes on"),
    ],
)
def test_trouble_is_one_line(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(_raises(error), "df-infer", []) == code
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_a_full_disk_is_told_by_every_library_that_writes(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def weights(argv: list[str]) -> int:
        save_file({"a": torch.zeros(100_000)}, full / "a.safetensors")
        return 0

    def plain(argv: list[str]) -> int:
        atomic_write(full / "a", bytes(100_000))
        return 0

    for main in (weights, plain):
        assert run_cli(main, "df-x", []) == 3
        assert "the disk is full" in capsys.readouterr().err
        (full / "a.safetensors").unlink(missing_ok=True)
    assert not os.listdir(full)


@pytest.mark.parametrize(
    ("program", "module", "wanted"),
    [
        ("df-infer", "PIL", "'df-infer[io]'"),
        ("df-infer", "transformers", "'df-infer[io]'"),
        ("df-models", "onnxruntime", "'df-models[encoders]'"),
        ("df-data", "mediapipe", "'df-data[mediapipe]'"),
        ("df-data", "yt_dlp.utils", "'df-data[fetch]'"),
        ("df-train", "wandb", "'df-train[wandb]'"),
        ("df-train", "tensorboard", "'df-train[tensorboard]'"),
        ("df-eval", "nothing_known", "nothing_known"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(program: str, module: str, wanted: str) -> None:
    if program != "df-models":
        pytest.importorskip(program.replace("-", "_"))
    assert f"pip install {wanted} " in missing_package(program, module)


def test_what_to_do_next_is_said_as_the_command_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV", raising=False)
    assert command("df-eval runs/a") == "df-eval runs/a"
    monkeypatch.setenv("UV", "/usr/bin/uv")
    assert command("df-eval runs/a") == "uv run df-eval runs/a"


@pytest.mark.parametrize("module", ["df_models", "df_data", "df_infer", "df_train", "df_eval"])
@pytest.mark.parametrize("form", ["{}", "{}.cli"])
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_runs_as_a_module(
    module: str, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(module)
    monkeypatch.setattr(sys, "argv", [module, "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(form.format(module), run_name="__main__")
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(module.replace("_", "-"))


def test_a_second_ctrl_c_ends_a_command_that_winds_up_without_a_traceback():
    program = (
        "import os, signal, threading, time\n"
        "from df_models.cli_support import run_cli\n"
        "def main(_):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()  # what the interpreter waits for at its end\n"
        "    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "    raise KeyboardInterrupt\n"
        "raise SystemExit(run_cli(main, 'df-test'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130 and done.stderr == "df-test: error: interrupted\n"
