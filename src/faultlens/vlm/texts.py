"""What every text tower asks of its texts."""

from collections.abc import Sequence

from faultlens.errors import InputError


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list; InputError where there is none or one is empty.

    Example:
        >>> check_texts(("fur", "beak"))
        ['fur', 'beak']
    """
    if isinstance(texts, str) or not texts:
        raise InputError(f"texts must be a list of at least one text, got {texts!r}")
    for text in texts:
        if not (isinstance(text, str) and text.strip()):
            raise InputError(f"text must have a word, got {text!r}; leave it out or write one")
    return list(texts)


def check_tokens(text: str, n_tokens: int, length: int) -> None:
    """Refuse a text that the model would have to cut.

    Example:
        >>> check_tokens("fur", 3, 2)
        Traceback (most recent call last):
        faultlens.errors.InputError: text must have at most 2 tokens, got 3 in 'fur'; shorten it
    """
    if n_tokens > length:
        raise InputError(
            f"text must have at most {length} tokens, got {n_tokens} in '{text}'; shorten it"
        )


def first_line(error: Exception) -> str:
    """Return the first line of a message that says something.

    Example:
        >>> first_line(ValueError("\\n no file\\nhelp"))
        'no file'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
