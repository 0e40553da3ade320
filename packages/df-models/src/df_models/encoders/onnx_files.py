"""Opening an ONNX file on one core of the processor, with one line for a file that is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from df_models.errors import UserError

if TYPE_CHECKING:
    import onnxruntime


def open_onnx(path: Path, what: str, how_to_get: str, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session on the processor; onnxruntime is imported here (``df-models[encoders]``).

    Args:
        what: the model in words, for errors, as in "the head pose network".

    Raises:
        UserError: there is no such file, or it is no ONNX model.
    """
    if not path.is_file():
        raise UserError(f"{what} is missing: no file {path}; {how_to_get}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise UserError(f"{path} is no ONNX model that can be read ({_line(error)}); {how_to_get}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
