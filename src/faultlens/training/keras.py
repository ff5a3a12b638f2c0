"""Watch a Keras 3 model: a callback for `fit` (PyTorch backend).

    from faultlens.training.keras import Watch

    watch = Watch(trace="run-1")
    model.fit(x, y, callbacks=[watch])
    for finding in watch.findings:
        print(finding.claim)

`Watch` takes `trace`, `schedule`, `on_fault` and `live`, as `faultlens.training.watch.watch` does.
"""

from collections.abc import Mapping
from typing import Any

from faultlens.errors import FaultlensError
from faultlens.training.callback import CallbackWatch, made


class WatchMethods(CallbackWatch):
    """What `Watch` adds to `keras.callbacks.Callback`.

    Args:
        options: `trace`, `schedule`, `on_fault`, `live`.
    """

    model: Any
    params: Any

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Begin to watch."""
        from faultlens.training.keras_loop import KerasLoop  # noqa: PLC0415 (loads PyTorch)

        loop = KerasLoop(self.model)
        loop.set_plan(self.params.get("epochs"), self.params.get("steps"), "keras")
        self._open(loop)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Take note of a step; metrics are Keras's running means over the epoch."""
        metrics = {k: float(v) for k, v in (logs or {}).items() if k != "loss"}
        try:
            self._opened().step(metrics=metrics or None)
        except FaultlensError:
            self.close()
            raise

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Take note of held-out results and of the end of an epoch."""
        held_out = {
            k.removeprefix("val_"): float(v) for k, v in (logs or {}).items() if "val_" in k
        }
        if held_out:
            self._opened().evaluate(held_out.pop("loss", None), held_out)
        self._opened().end_epoch()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Diagnose once more and let go of the model."""
        self._opened().close()


def __getattr__(name: str) -> Any:
    """Make `Watch` when it is asked for, so that this module can be read without Keras."""
    if name != "Watch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from faultlens.training.keras_loop import load_keras  # noqa: PLC0415 (loads Keras)

    base = load_keras().callbacks.Callback
    return made(WatchMethods, base, globals())
