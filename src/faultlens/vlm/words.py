"""A tokenizer of whole words, for small text towers with a fixed vocabulary."""

import difflib
import os
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from faultlens.errors import InputError, nearest
from faultlens.files import read_json, write_json

PathLike = str | os.PathLike[str]

_WORD = re.compile(r"[^\W_]+")


class WordTokenizer:
    """Turns texts into rows of word numbers.

    Texts are lower-cased and split at everything that is neither a letter nor a digit, so that
    "long-snout" is "long snout". A word that the tower never saw means nothing to it, so it is
    refused instead of replaced.

    Args:
        words: The vocabulary; the first word is number 1, and 0 fills up a row.
        length: Most words in a text.

    Raises:
        InputError: A word is no single lower-case word or occurs twice, there is none, or the
            length is not positive.

    Example:
        >>> tokenizer = WordTokenizer(["a", "snout", "long", "wheels"], length=4)
        >>> tokenizer(["a long-snout", "Wheels"]).tolist()
        [[1, 3, 2, 0], [4, 0, 0, 0]]
        >>> tokenizer(["a weel"])
        Traceback (most recent call last):
        faultlens.errors.InputError: text must use the 4 words that the model knows, got 'weel' \
in 'a weel'; did you mean 'wheels'?
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.words, self.length = tuple(words), length
        for word in self.words:
            if _WORD.fullmatch(word) is None or word != word.lower():
                raise InputError(
                    f"words must be single words in lower case, got {word!r}; split or lower it"
                )
        self._ids = {word: i for i, word in enumerate(self.words, start=1)}
        if not self.words or len(self._ids) != len(self.words):
            raise InputError(
                f"words must be at least one and all different, got {len(self.words)} with "
                f"{len(self.words) - len(self._ids)} repeated; leave out the repeated ones"
            )
        if length < 1:
            raise InputError(f"length must be at least 1, got {length}")

    def __call__(self, texts: Sequence[str]) -> Int64[np.ndarray, "P L"]:
        """Return the word numbers of each text, in rows of `length`, zeros after the last word.

        Raises:
            InputError: There is no text, or one is empty, is too long or has an unknown word.
        """
        if isinstance(texts, str) or not texts:
            raise InputError(f"texts must be a list of at least one text, got {texts!r}")
        tokens = np.zeros((len(texts), self.length), np.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = self._encode(text)
            row[: len(ids)] = ids
        return tokens

    def _encode(self, text: str) -> list[int]:
        words = _WORD.findall(text.lower())
        if not words:
            raise InputError(f"text must have a word, got {text!r}; leave it out or write one")
        for word in words:
            if word not in self._ids:
                # Of a large vocabulary only the words that are near are of help.
                near = difflib.get_close_matches(word, self.words, n=5, cutoff=0)
                raise InputError(
                    f"text must use the {len(self.words)} words that the model knows, got "
                    f"'{word}' in '{text}'; {nearest(word, near)}"
                )
        if len(words) > self.length:
            raise InputError(
                f"text must have at most {self.length} words, got {len(words)} in '{text}'; "
                "shorten it"
            )
        return [self._ids[word] for word in words]

    def write(self, path: PathLike) -> str:
        """Write the vocabulary as a JSON file and return the file's SHA-256.

        Raises:
            StoreError: The file cannot be written.
        """
        return write_json(str(path), {"words": self.words, "length": self.length})

    @classmethod
    def read(cls, path: PathLike) -> "WordTokenizer":
        """Read a file that `write` made.

        Raises:
            StoreError: The file is absent or damaged.
            InputError: It is no vocabulary.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     _ = WordTokenizer(["beak", "fur"], length=2).write(f"{folder}/words.json")
            ...     WordTokenizer.read(f"{folder}/words.json").words
            ('beak', 'fur')
        """
        value = read_json(str(path))
        match value:
            case {"words": [*words], "length": int(length)} if all(
                isinstance(word, str) for word in words
            ):
                return cls(words, length)
        raise InputError(
            f"{path} must hold a list 'words' and a number 'length', got {str(value)[:60]}; "
            "write it with WordTokenizer.write"
        )
