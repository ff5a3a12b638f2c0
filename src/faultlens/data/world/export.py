"""ConceptWorld as files: pictures in class folders, beside tables of all that is true of them.

OUT/<class>/<index>.png   the pictures
OUT/world.csv             path, class and every yes-or-no fact: an image list for a run
OUT/scenes.csv            the scenes, exactly: colours, lights, sizes, angles, seeds
OUT/world.json            what was asked for: n, seed, recipe, version
OUT/masks.npy             on request, (N, 18, 64, 8) uint8: where each attribute is visible,
                          eight pixels a byte; `numpy.unpackbits(masks, axis=-1)` unpacks
"""

import csv
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from faultlens import files
from faultlens.data.world import captions
from faultlens.data.world.names import ATTRIBUTES
from faultlens.data.world.pool import parallel
from faultlens.data.world.render import SIDE, render
from faultlens.data.world.scene import Recipe, Scene, scenes
from faultlens.errors import InputError, StoreError

_CHUNK = 64
_COLUMNS = {
    fact.partition(":")[2] if fact.startswith("attribute:") else words[0]: fact
    for fact, words in captions.WORDS.items()
    if not fact.startswith("class:")
}

#: Columns of `world.csv` after path and class, named as the concepts of the demo are.
FACTS = (*_COLUMNS, "mirrored")
_SCENE = (
    "path", "class", "attributes", "background", "color", "light", "occluder", "watermark", "size",
    "angle", "mirrored", "shift_x", "shift_y", "seed",
)  # fmt: skip

_Drawn = tuple[Sequence[Scene], Bool[np.ndarray, "n 18"], UInt8[np.ndarray, "n 18 64 8"]]


def export(  # noqa: PLR0913 (what to draw, where to, and how; none belongs with another)
    out: str | os.PathLike[str],
    n: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    *,
    workers: int = 1,
    has_masks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw scenes into a folder that `open_images` reads, by itself or by its `world.csv`.

    The folder appears when it is complete. `world.csv` says 1 for an attribute where at least 6
    pixels show it; `scenes.csv` names the attributes that were drawn, before anything covers them.

    Args:
        out: The folder; new, or empty.
        n: Number of pictures; the first ones do not depend on it.
        seed: Of all chance.
        recipe: What scenes are drawn from; everything unless given.
        workers: Processes; more than one in a script needs `if __name__ == "__main__":`.
        has_masks: Whether to write the attributes' masks too, 9 KB a picture.
        progress: Called with the number done and the number of all.

    Returns:
        The folder.

    Raises:
        InputError: No pictures asked for, or the folder holds something.
        StoreError: The folder cannot be written to, or the disk is full.

    Example:
        >>> import tempfile
        >>> from faultlens.data.images import open_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = export(f"{folder}/world", 5, seed=7)
        ...     len(open_images(place)), open_images(place / "world.csv").attributes["wings"].shape
        (5, (5,))
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}; ask for one picture or more")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}; give another")
    _check_free(Path(out))
    recipe = recipe or Recipe()
    draw = partial(_draw, has_masks=has_masks)
    workers = min(workers, math.ceil(n / _CHUNK))
    chunks = _chunks(scenes(n, seed, recipe))
    try:
        with _folder_at_once(Path(out).resolve()) as folder, parallel(workers) as apply:
            _write(folder, n, apply(partial(draw, folder), chunks), has_masks, progress)
            files.write_json(folder / "world.json", _request(n, seed, recipe))
    except OSError as error:
        raise StoreError(
            f"{out} must be writable, got {error.strerror or error}; "
            "free some space or choose another folder"
        ) from error
    return Path(out)


def is_export(folder: Path, n: int, seed: int = 0, recipe: Recipe | None = None) -> bool:
    """Return whether a folder holds what `export` with these arguments writes."""
    path = folder / "world.json"
    return path.exists() and bool(files.read_json(path) == _request(n, seed, recipe or Recipe()))


def facts(scene: Scene, attributes: Bool[np.ndarray, "18"]) -> dict[str, int]:
    """Return what `world.csv` says of a picture: 1 or 0 for each of `FACTS`.

    Args:
        scene: What was rendered.
        attributes: Which attributes are visible.
    """
    true = captions.facts_of(scene, attributes)
    return {c: int(f in true) for c, f in _COLUMNS.items()} | {"mirrored": int(scene.is_mirrored)}


def _check_free(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        kind = "a folder that holds something" if out.is_dir() else "a file"
        raise InputError(
            f"out must be a new or empty folder, got '{out}', {kind}; "
            "give another name or remove it"
        )


@contextmanager
def _folder_at_once(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside `out` that takes its name when all went well."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _chunks(drawn: Iterator[Scene]) -> Iterator[tuple[int, list[Scene]]]:
    start = 0
    while chunk := list(islice(drawn, _CHUNK)):
        yield start, chunk
        start += len(chunk)


def _draw(folder: Path, numbered: tuple[int, list[Scene]], *, has_masks: bool) -> _Drawn:
    """Write one chunk's pictures; return what is visible in them."""
    start, chunk = numbered
    attributes, masks = [], []
    for i, scene in enumerate(chunk, start):
        picture = render(scene)
        path = folder / _path(i, scene)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture.pixels).save(path)
        attributes.append(picture.attributes)
        if has_masks:
            masks.append(np.packbits(picture.masks, axis=-1))
    packed = np.array(masks, np.uint8).reshape(-1, len(ATTRIBUTES), SIDE, SIDE // 8)
    return chunk, np.stack(attributes), packed


def _write(
    folder: Path,
    n: int,
    drawn: Iterable[_Drawn],
    has_masks: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the tables and masks while pictures are drawn."""
    report = progress or (lambda done, total: None)
    masks = None
    if has_masks:
        shape = (n, len(ATTRIBUTES), SIDE, SIDE // 8)
        masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
    with ExitStack() as stack:
        world, exact = (
            csv.writer(stack.enter_context(open(folder / name, "w", newline="", encoding="utf-8")))
            for name in ("world.csv", "scenes.csv")
        )
        world.writerow(["path", "class", *FACTS])
        exact.writerow(_SCENE)
        done = 0
        for chunk, attributes, packed in drawn:
            if masks is not None:
                masks[done : done + len(chunk)] = packed
            for scene, visible in zip(chunk, attributes, strict=True):
                path = _path(done, scene)
                world.writerow([path, scene.label, *facts(scene, visible).values()])
                exact.writerow([path, *_fields(scene)])
                done += 1
            report(done, n)


def _path(index: int, scene: Scene) -> str:
    return f"{scene.label}/{index:05d}.png"


def _fields(scene: Scene) -> list[Any]:
    shown = " ".join(a for a in ATTRIBUTES if a in scene.attributes)
    return [
        scene.label, shown, scene.background, scene.color, scene.light, scene.occluder or "",
        int(scene.watermark), scene.size, scene.angle, int(scene.is_mirrored), *scene.shift,
        scene.seed,
    ]  # fmt: skip


def _request(n: int, seed: int, recipe: Recipe) -> Any:
    request = {"n": n, "seed": seed, "recipe": asdict(recipe), "version": version("faultlens")}
    return json.loads(json.dumps(request))
