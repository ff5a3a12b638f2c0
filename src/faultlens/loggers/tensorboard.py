"""TensorBoard: a session's numbers as scalars and its findings as text, one step a session.

from faultlens.loggers import tensorboard

tensorboard.log(session, "runs/nightly", step=17)
# tensorboard --logdir runs
"""

import importlib
import time
from pathlib import Path
from typing import Any

from faultlens.errors import MissingDependencyError
from faultlens.gate.run import Gate
from faultlens.loggers import content
from faultlens.session import DebugSession


def log(
    session: DebugSession, log_dir: str | Path, *, step: int = 0, gate: Gate | None = None
) -> Path:
    """Log a session; a folder may take many, each at its own step.

    Args:
        session: Finished.
        log_dir: Folder for the event file; made if it is missing.
        step: Of the session, such as the epoch or the number of the build.
        gate: What a gate said of it.

    Returns:
        The folder.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
    """
    events, summaries, tensors, text, writers = _load()
    value = summaries.Summary.Value
    values = [
        value(tag=f"faultlens/{name}", simple_value=number)
        for name, number in content.metrics(session, gate).items()
    ]
    shape = {"dim": [{"size": 1}]}
    told = tensors.TensorProto(
        dtype="DT_STRING", tensor_shape=shape,
        string_val=[content.markdown(session, gate).encode()],
    )  # fmt: skip
    about = text.create_summary_metadata("findings", "")
    values.append(value(tag="faultlens/findings", metadata=about, tensor=told))
    folder = Path(log_dir)
    writer = writers.EventFileWriter(str(folder))
    try:
        summary = summaries.Summary(value=values)
        writer.add_event(events.Event(wall_time=time.time(), step=step, summary=summary))
    finally:
        writer.close()
    return folder


def _load() -> tuple[Any, ...]:
    """Return the modules of events, summaries, tensors, texts and the writer."""
    names = (
        "tensorboard.compat.proto.event_pb2", "tensorboard.compat.proto.summary_pb2",
        "tensorboard.compat.proto.tensor_pb2", "tensorboard.plugins.text.metadata",
        "tensorboard.summary.writer.event_file_writer",
    )  # fmt: skip
    try:
        return tuple(importlib.import_module(name) for name in names)
    except ImportError as error:
        raise MissingDependencyError("tensorboard", "tensorboard") from error
