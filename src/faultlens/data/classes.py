"""Class names: their order, and whether a model knows them."""

import re
from collections import Counter
from collections.abc import Sequence

from faultlens.data.listing import some
from faultlens.errors import InputError, nearest


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct names in alphabetical order, numbers by their value.

    Example:
        >>> in_order(["class10", "class2", "apple", "class2"])
        ('apple', 'class2', 'class10')
    """

    def part(text: str) -> tuple[bool, int, str]:
        is_word = text[0] not in "0123456789"
        bare = text if is_word else text.lstrip("0")
        return is_word, 0 if is_word else len(bare), bare  # a longer number is a larger one

    def key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
        return [part(p) for p in re.findall(r"[0-9]+|[^0-9]+", name.casefold())], name

    return tuple(sorted(set(names), key=key))


def match(used: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """Return the position of each used class among a model's; names must be equal to the letter.

    Args:
        used: Names of the classes that have images.
        known: Names of the model's classes.

    Raises:
        InputError: A used class is unknown, or known twice. Each unknown one is shown with the
            nearest known, first of all one that differs only in case, space, - or _.

    Example:
        >>> match(["dog"], ["cat", "dog"])
        {'dog': 1}
        >>> match(["Polar-Bear"], ["cat", "polar bear"])
        Traceback (most recent call last):
        faultlens.errors.InputError: classes of the images must be the model's, got 1 unknown:
          'Polar-Bear': did you mean 'polar bear'?
        rename the folders, or the values of the column 'class'
    """
    counts = Counter(known)
    twice = [name for name in used if counts[name] > 1]
    if twice:
        raise InputError(
            f"class names of the model must differ, got {some(twice)} more than once; rename them"
        )
    unknown = [name for name in used if name not in counts]
    if unknown:
        lines = [f"  '{name}': {_hint(name, known)}" for name in unknown[:10]]
        lines += [f"  … and {len(unknown) - 10} more"] if len(unknown) > 10 else []
        raise InputError(
            f"classes of the images must be the model's, got {len(unknown)} unknown:\n"
            + "\n".join(lines)
            + "\nrename the folders, or the values of the column 'class'"
        )
    positions = {name: k for k, name in enumerate(known)}
    return {name: positions[name] for name in used}


def _hint(name: str, known: Sequence[str]) -> str:
    def bare(text: str) -> str:
        return re.sub(r"[\s_-]+", "", text).casefold()

    same = [k for k in known if bare(k) == bare(name)]
    return f"did you mean '{same[0]}'?" if same else nearest(name, known)
