"""The VLM `demo`: a small dual encoder for pictures of ConceptWorld, part of the package.

It knows ConceptWorld and the words of its captions, nothing else, and needs no extra.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from PIL import Image

from faultlens.arrays import Array, FloatArray, check_array, tensor_hashes
from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError
from faultlens.onnx_session import first_line, open_session
from faultlens.vlm.words import WordTokenizer

#: The mean and deviation of the pictures are inside the image tower.
PREPROCESSING = Preprocessing(resize=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

_FOLDER = Path(__file__).parents[1] / "assets" / "demo-vlm"
_IMAGE, _TEXT, _WORDS = "image.onnx", "text.onnx", "words.json"
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


class OnnxDualEncoder:
    """An image tower and a text tower in one folder, run by ONNX Runtime.

    The folder holds `image.onnx` (`image`, (N, 3, 64, 64) in [0, 1], to `embedding`, (N, E)),
    `text.onnx` (`tokens`, (P, length) int64, to `embedding`, (P, E)) and `words.json`
    (`WordTokenizer.write`); weights are inside the ONNX files.

    Args:
        folder: Where the three files are.
        name: Shown in reports.

    Attributes:
        name: As given.
        content_hash: SHA-256 over the files and the preprocessing.
        dimension: E, length of both embeddings.
        tensor_hashes: SHA-256 of the float32 bytes of each weight of the image tower with at
            least 64 values.
        tokenizer: Its vocabulary is all that `encode_text` understands.

    Raises:
        InputError: A file is missing, cannot be run, or is not as described above.
        StoreError: `words.json` is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str) -> None:
        folder = Path(folder)
        for file in (_IMAGE, _TEXT, _WORDS):
            if not (folder / file).is_file():
                raise InputError(
                    f"folder of {name} must hold '{file}', got none in '{folder}'; "
                    "copy the whole folder again"
                )
        image, text = (folder / file for file in (_IMAGE, _TEXT))
        self.name = name
        self.tokenizer = WordTokenizer.read(folder / _WORDS)
        self._image, self._text = _session(image, "image"), _session(text, "tokens")
        self.tensor_hashes = tensor_hashes(_weights(image))
        digest = hashlib.sha256(PREPROCESSING.content_hash.encode())
        for file in (_IMAGE, _TEXT, _WORDS):
            digest.update(hashlib.sha256((folder / file).read_bytes()).digest())
        self.content_hash = digest.hexdigest()
        self.dimension = self._check()

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the image tower's input, (3, 64, 64) in [0, 1]."""
        return PREPROCESSING(image)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, E)}`, float32, for a prepared batch.

        Raises:
            ShapeError: The batch does not have four axes, or is not finite.
            InputError: The tower cannot take it.
        """
        x = check_array(batch, "N C H W", name="batch").astype(np.float32, copy=False)
        return {"embedding": self._run(self._image, {"image": x})}

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, one row a text.

        Raises:
            InputError: A text is empty or too long, or has a word that the model does not know;
                the message names the nearest that it does.
        """
        return self._run(self._text, {"tokens": self.tokenizer(texts)})

    def _check(self) -> int:
        """Run both towers once and return E."""
        (picture,) = self.encode(np.zeros((1, 3, 64, 64), np.float32)).values()
        text = self.encode_text([self.tokenizer.words[-1]])
        if picture.shape != text.shape or picture.ndim != 2:
            raise InputError(
                f"towers of {self.name} must give embeddings of one length, got {picture.shape} "
                f"for a picture and {text.shape} for a text; export both from the same training"
            )
        return int(picture.shape[1])

    def _run(self, session: Any, feeds: dict[str, Any]) -> FloatArray:
        try:
            (embedding,) = session.run(["embedding"], feeds)
        except Exception as error:  # ONNX Runtime's errors share no narrower class.
            ((key, value),) = feeds.items()
            raise InputError(
                f"{key} must be an input that {self.name} can take, got shape {value.shape} "
                f"({first_line(error)}); use prepare and a words.json of the same model"
            ) from error
        return np.asarray(embedding, np.float32)


def load(argument: str = "") -> OnnxDualEncoder:
    """Load the demonstration VLM.

    Args:
        argument: Nothing may follow `demo`.

    Raises:
        InputError: Something followed, or the installation is incomplete.

    Example:
        >>> load("large")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'demo' alone, got 'demo:large'; leave out the rest
    """
    if argument:
        raise InputError(f"vlm must be 'demo' alone, got 'demo:{argument}'; leave out the rest")
    return OnnxDualEncoder(_FOLDER, "demo")


def _session(path: Path, key: str) -> Any:
    """Return a quiet session of a tower that turns `key` into `embedding`."""
    try:
        session = open_session(path.read_bytes())
    except Exception as error:  # ONNX Runtime's errors share no narrower class.
        raise InputError(
            f"{path} must be an ONNX file that can be run, got: {first_line(error)}; export it "
            "with its weights inside, or copy it again"
        ) from error
    inputs, outputs = ([a.name for a in s] for s in (session.get_inputs(), session.get_outputs()))
    if inputs != [key] or outputs != ["embedding"]:
        raise InputError(
            f"{path} must turn '{key}' into 'embedding', got {inputs} and {outputs}; export it "
            "with these names"
        )
    return session


def _weights(path: Path) -> Iterator[Array]:
    for tensor in onnx.load(path).graph.initializer:
        if tensor.data_type in _FLOATS:
            yield numpy_helper.to_array(tensor)
