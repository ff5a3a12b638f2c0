"""Ranks: parts dealt out over processes that something else starts, such as `torchrun`."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faultlens.errors import InputError, WorkerError
from faultlens.scale.protocols import Job

#: Names of the rank and of the number of ranks: torchrun's, then those of Slurm's `srun`.
_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of several processes that all run the same script.

    Rank r computes the parts r, r + n, r + 2 n, …; rank 0 then waits for the files of the others
    and merges. Ranks speak through these files alone: they need a folder or an object store that
    all of them see, and no network between them.

    Attributes:
        rank: From 0.
        n_ranks: Of the whole run.
        patience_s: Seconds that rank 0 waits for the next part of another rank.

    Example:
        >>> list(Ranks(1, 3).own(8)), Ranks(1, 3).is_lead
        ([1, 4, 7], False)
    """

    rank: int
    n_ranks: int
    patience_s: float = 3600.0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.n_ranks:
            raise InputError(
                f"rank must lie in 0 … n_ranks - 1 = {self.n_ranks - 1}, got {self.rank}"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Ranks | None":
        """Return the rank that `torchrun` or `srun` gave this process; None without one.

        Raises:
            InputError: The variables hold no numbers, or numbers that do not fit.

        Example:
            >>> Ranks.from_environment({"RANK": "1", "WORLD_SIZE": "2"})
            Ranks(rank=1, n_ranks=2, patience_s=3600.0)
        """
        for names in _VARIABLES:
            values = [environment.get(name) for name in names]
            if None in values:
                continue
            try:
                rank, n_ranks = (int(value or "") for value in values)
            except ValueError as error:
                raise InputError(
                    f"{names[0]} and {names[1]} must be numbers, got {values}"
                ) from error
            return cls(rank, n_ranks)
        return None

    @property
    def is_lead(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other rank."""
        return self.n_ranks == 1

    def own(self, n_parts: int) -> range:
        """Return every n-th part."""
        return range(self.rank, n_parts, self.n_ranks)

    def run(self, job: Job[object], parts: Sequence[int], done: Callable[[], None]) -> None:
        """Compute parts in this process."""
        work = job.open() if parts else None
        for part in parts:
            if work is not None:
                work(part)
            done()

    def wait(self, job: Job[object]) -> None:
        """Return when the parts of all ranks are there; WorkerError when nothing more comes."""
        mine = set(self.own(job.n_parts))
        left = [part for part in range(job.n_parts) if part not in mine]
        pause, last = 0.05, time.monotonic()
        while still := [part for part in left if not job.is_done(part)]:
            if len(still) < len(left):
                left, last = still, time.monotonic()
            elif time.monotonic() - last > self.patience_s:
                raise WorkerError(
                    f"other ranks must deliver within {self.patience_s:g} s, got nothing new and "
                    f"{len(left)} parts missing (first: {left[0]}); look at their logs and run "
                    "the same command again: finished parts are kept"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
