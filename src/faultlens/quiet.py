"""Loading with transformers, without its messages and progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Keep transformers quiet while it loads, and leave its settings as they were.

    Args:
        logging: `transformers.utils.logging`, which the caller has loaded.
    """
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
