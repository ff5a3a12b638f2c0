"""The folder of an exported dual encoder: two towers, a tokenizer, and what to know about them."""

from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError
from faultlens.files import read_json, sha256_file

IMAGE, TEXT, TOKENIZER, MANIFEST = "image.onnx", "text.onnx", "tokenizer.json", "vlm.json"
PIXELS, TOKENS, MASK, EMBEDDING = "pixel_values", "input_ids", "attention_mask", "embedding"


class CheckpointPreprocessing(Preprocessing):
    """Preprocessing with the centre crop of transformers, which always rounds down.

    Example:
        >>> p = CheckpointPreprocessing(resize=None, crop=1, scale=1, mean=(0,) * 3, std=(1,) * 3)
        >>> wide = Image.new("RGB", (4, 1))
        >>> wide.putpixel((1, 0), (9, 9, 9))
        >>> p(wide).max()
        np.float32(9.0)
    """

    def resized(self, image: Image.Image) -> Image.Image:
        """Return the picture after resize and crop, before any arithmetic."""
        image = Preprocessing.resized(self.model_copy(update={"crop": None}), image)
        if self.crop is None:
            return image
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


class TextPlan(BaseModel):
    """How rows of token numbers are filled.

    Attributes:
        length: Tokens in a row, and most tokens in a text.
        pad: Number that fills a row.
        is_left: Fill it on the left.
        has_mask: The tower is also told which tokens are real.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(ge=1)
    pad: int = Field(ge=0)
    is_left: bool
    has_mask: bool


class Manifest(BaseModel):
    """The content of `vlm.json`.

    Attributes:
        format: Version of the folder.
        name: Of the checkpoint.
        source: `content_hash` of the backend that was exported.
        preprocessing: Of pictures.
        text: Of texts.
        logit_scale: See `ClipBackend`.
        logit_bias: See `ClipBackend`.
        tensor_hashes: See `VlmBackend`, of the checkpoint's own tensors.
        sha256: Of the other files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["faultlens-onnx-clip-1"] = "faultlens-onnx-clip-1"
    name: str
    source: str
    preprocessing: CheckpointPreprocessing
    text: TextPlan
    logit_scale: float
    logit_bias: float
    tensor_hashes: tuple[str, ...]
    sha256: dict[str, str]


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's description and check its files against it.

    Raises:
        InputError: A file is missing, is not the one described, or the description is none; the
            message names it.
        StoreError: `vlm.json` is no JSON.

    Example:
        >>> read_manifest(Path("absent"))
        Traceback (most recent call last):
        faultlens.errors.InputError: folder of onnx-clip must hold 'vlm.json', got none in \
'absent'; make one with 'faultlens export-vlm'
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"folder of onnx-clip must hold '{MANIFEST}', got none in '{folder}'; make one with "
            "'faultlens export-vlm'"
        )
    found: Any = read_json(folder / MANIFEST)
    try:
        manifest = Manifest.model_validate(found)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"])) or "content"
        raise InputError(
            f"{folder / MANIFEST}: '{place}' is wrong: {wrong['msg']}; export the model again"
        ) from error
    for name in (IMAGE, TEXT, TOKENIZER):
        if not (folder / name).is_file():
            raise InputError(
                f"folder of onnx-clip must hold '{name}', got none in '{folder}'; "
                "copy the whole folder again"
            )
        if (actual := sha256_file(folder / name)) != manifest.sha256.get(name):
            raise InputError(
                f"{folder / name} must be the file that '{MANIFEST}' describes, got SHA-256 "
                f"{actual[:12]}…; copy the whole folder again, or export the model again"
            )
    return manifest
