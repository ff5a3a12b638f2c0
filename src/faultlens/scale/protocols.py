"""What a job and a runner offer each other."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

Result_co = TypeVar("Result_co", covariant=True)


class Job(Protocol[Result_co]):
    """Work in parts; it must survive pickling, since it is sent to workers."""

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        ...

    def is_done(self, part: int) -> bool:
        """Whether a part's file is there and intact."""
        ...

    def open(self) -> Callable[[int], None]:
        """Return what computes and stores a part; called once a worker, to load models."""
        ...

    def held(self) -> AbstractContextManager[object]:
        """Keep other runs out, where that can be done."""
        ...

    def collect(self) -> Result_co:
        """Merge the stored parts, in their order."""
        ...


class Runner(Protocol):
    """Where the parts are computed."""

    @property
    def is_lead(self) -> bool:
        """Whether this process merges the parts."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether no other process is given parts of the same job by somebody else."""
        ...

    def own(self, n_parts: int) -> range:
        """Return the parts that this process answers for."""
        ...

    def run(self, job: Job[object], parts: Sequence[int], done: Callable[[], None]) -> None:
        """Compute parts and return when all are stored; `done` is called after each."""
        ...

    def wait(self, job: Job[object]) -> None:
        """Return when the parts of all processes are stored."""
        ...
