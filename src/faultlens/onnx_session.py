"""ONNX Runtime, opened the same way for classifiers and vision-language models."""

from typing import Any

import onnxruntime as ort


def open_session(model: bytes, *, threads: int | None = None) -> Any:
    """Return a session on the CPU that logs nothing.

    Args:
        model: A complete ONNX model; weights in another file are refused, since nothing hashes
            that file.
        threads: Within one operator; None lets the runtime choose.

    Raises:
        Exception: Of ONNX Runtime, whose errors share no narrower class.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Otherwise a layer whose weights are stored in eight bits would round its input as well.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def first_line(error: Exception) -> str:
    """Return the first line of a message; ONNX Runtime's run over many.

    Example:
        >>> first_line(ValueError("wrong shape\\nat node 3"))
        'wrong shape'
    """
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
