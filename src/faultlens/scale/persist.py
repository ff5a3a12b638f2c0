"""Persist: workers may die; what they finished counts, and the rest is tried again."""

from collections.abc import Callable, Sequence

from faultlens.errors import WorkerError
from faultlens.scale.protocols import Job

Attempt = Callable[[Sequence[int], Callable[[int], None]], None]


def persist(
    job: Job[object],
    parts: Sequence[int],
    done: Callable[[], None],
    attempt: Attempt,
    stops: tuple[type[BaseException], ...],
) -> None:
    """Compute parts, again and again for as long as some get finished.

    Args:
        job: Whose parts they are.
        parts: To be computed.
        done: Called after each.
        attempt: Computes parts and calls its second argument with each that is finished.
        stops: What `attempt` raises when workers die.

    Raises:
        WorkerError: An attempt ended without finishing any part.
    """
    left = list(parts)

    def finished(part: int) -> None:
        left.remove(part)
        done()

    while left:
        n_before = len(left)
        try:
            attempt(tuple(left), finished)
        except stops as error:
            for part in [p for p in left if job.is_done(p)]:  # finished, but not yet told
                finished(part)
            if len(left) == n_before:
                raise WorkerError(
                    f"workers must finish a part before they stop, got none of {n_before} "
                    "finished; give each more memory, or fewer workers"
                ) from error
