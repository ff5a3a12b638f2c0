"""ImageSource: where labelled images come from; nothing is decoded until asked."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from faultlens.arrays import Array, IntArray, check_array, read_only
from faultlens.data.classes import in_order, match
from faultlens.data.decode import MAX_PIXELS, decode
from faultlens.data.folders import list_folder
from faultlens.data.kinds import kind_of
from faultlens.data.listing import Listing, check_exists, check_names
from faultlens.data.pixels import check_pixels, to_file
from faultlens.data.scan import Progress, Scan, scan_files
from faultlens.data.subset import check_indices, stratified_order
from faultlens.data.tables import list_table
from faultlens.errors import ImageError, InputError, ShapeError, nearest
from faultlens.registry import IMAGES


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ImageSource:
    """Labelled images in files, in an array, or inside larger files.

    Attributes:
        names: Path of each of the N images relative to `root`, with forward slashes, or `array[i]`.
        labels: (N,) int64, the truth as an index into `class_names`.
        class_names: K names.
        root: Folder or file that they come from; "" for arrays.
        splits: Split of each image, or None.
        subclasses: Subclass of each image, "" for none, or None.
        attributes: Per attribute (N,) int8: 1 present, 0 absent, -1 unknown.
        pixels: Of arrays: uint8 (M, H, W, 3) or (M, H, W); None for files.
        stored: Of images inside larger files: gives the bytes of row j; called from threads.
        rows: Of both: (N,), the row of `pixels` or `stored` for each image.

    Example:
        >>> images = np.zeros((3, 8, 8), dtype=np.uint8)
        >>> source = ImageSource.from_arrays(images, [0, 1, 1], ["cat", "dog"])
        >>> source
        ImageSource(3 images, 2 classes)
        >>> source.select([2]).names
        ('array[2]',)
    """

    names: tuple[str, ...]
    labels: IntArray
    class_names: tuple[str, ...]
    root: str = ""
    splits: tuple[str, ...] | None = None
    subclasses: tuple[str, ...] | None = None
    attributes: dict[str, IntArray] = field(default_factory=dict)
    pixels: Array | None = None
    rows: IntArray | None = None
    stored: Callable[[int], bytes] | None = None

    def __post_init__(self) -> None:
        check_names(self.names)
        columns = {"labels": self.labels, "splits": self.splits, "subclasses": self.subclasses}
        for name, column in (columns | self.attributes).items():
            if column is not None and len(column) != len(self.names):
                raise ShapeError(
                    f"{name} must have one value an image ({len(self.names)}), got {len(column)}"
                )
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise InputError(
                f"labels must lie in 0 to {len(self.class_names) - 1}, got "
                f"{self.labels.min()} to {self.labels.max()}; give a name for every class"
            )

    @classmethod
    def from_folder(cls, root: str | os.PathLike[str]) -> "ImageSource":
        """List a folder: `root/<class>/image` or `root/<split>/<class>/…/image`.

        Raises:
            InputError: See `faultlens.data.folders.list_folder`.

        Example:
            >>> ImageSource.from_folder("no/such/place")  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            faultlens.errors.InputError: images must be a folder, got 'no/such/place', which ...
        """
        root = os.path.expanduser(os.fspath(root))
        return cls.from_listing(list_folder(root), root)

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "ImageSource":
        """List the images that a CSV file names: `path`, `class`, `split`, `subclass`, attributes.

        Args:
            path: The CSV file; see `faultlens.data.tables.list_table` for its columns.
            root: Folder that the paths start from; the file's own unless given.
            class_names: Order of the classes; sorted, with numbers by value, unless given.

        Raises:
            InputError: See `faultlens.data.tables.list_table`.

        Example:
            >>> ImageSource.from_csv("images.csv")  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            faultlens.errors.InputError: images must be a CSV file, got 'images.csv', which ...
        """
        path = os.path.expanduser(os.fspath(path))
        root = os.path.dirname(path) or "." if root is None else os.path.expanduser(os.fspath(root))
        return cls.from_listing(list_table(path, root), root, class_names)

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        class_names: Sequence[str],
        *,
        splits: Sequence[str] | None = None,
        subclasses: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "ImageSource":
        """Take images that are in memory (or memory-mapped); they are not copied.

        Args:
            images: uint8, (N, H, W, 3) RGB or (N, H, W) grey.
            labels: (N,) integers, index into `class_names`.
            class_names: K names.
            splits: Split of each image.
            subclasses: Subclass of each image, "" for none.
            attributes: Per attribute (N,) integers: 1 present, 0 absent, -1 unknown.

        Raises:
            ShapeError: Wrong shape or type.
            InputError: A label without a class name.

        Example:
            >>> source = ImageSource.from_arrays(np.zeros((1, 2, 3), np.uint8), [0], ["cat"])
            >>> source.load(0).size
            (3, 2)
        """
        pixels = check_pixels(images)
        return cls(
            names=tuple(f"array[{i}]" for i in range(len(pixels))),
            labels=_column(labels, "labels", np.int64),
            class_names=tuple(class_names),
            splits=None if splits is None else tuple(splits),
            subclasses=None if subclasses is None else tuple(subclasses),
            attributes={a: _attribute(v, a) for a, v in (attributes or {}).items()},
            pixels=pixels,
            rows=read_only(np.arange(len(pixels))),
        )

    @classmethod
    def from_listing(
        cls,
        listing: Listing,
        root: str = "",
        class_names: Sequence[str] | None = None,
        stored: Callable[[int], bytes] | None = None,
    ) -> "ImageSource":
        """Take what a reader listed; `stored` gives the bytes of row i where no file does.

        Example:
            >>> ImageSource.from_listing(Listing(["1"], ["cat"]), stored=lambda i: b"P5").read(0)
            b'P5'
        """
        names = in_order(listing.classes)
        index = {name: k for k, name in enumerate(names)}
        source = cls(
            names=tuple(listing.names),
            labels=_column([index[c] for c in listing.classes], "labels", np.int64),
            class_names=names,
            root=root,
            splits=None if listing.splits is None else tuple(listing.splits),
            subclasses=None if listing.subclasses is None else tuple(listing.subclasses),
            attributes={a: read_only(values) for a, values in listing.attributes.items()},
            stored=stored,
            rows=None if stored is None else read_only(np.arange(len(listing.names))),
        )
        return source if class_names is None else source.match_classes(class_names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        parts = [f"{len(self)} images", f"{len(self.class_names)} classes"]
        if self.splits is not None:
            parts.append("splits " + "/".join(sorted(set(self.splits))))
        if self.root:
            parts.append(repr(self.root))
        return f"ImageSource({', '.join(parts)})"

    @property
    def classes_without_images(self) -> tuple[str, ...]:
        """Names of the classes that no image here has.

        Example:
            >>> source = ImageSource(("1.png",), np.array([1]), ("cat", "dog"))
            >>> source.classes_without_images
            ('cat',)
        """
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return tuple(n for n, count in zip(self.class_names, counts, strict=True) if not count)

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`: of its file, or for arrays a PPM or PGM of its pixels.

        Raises:
            ImageError: The file cannot be read.

        Example:
            >>> ImageSource.from_arrays(np.zeros((1, 1, 2), np.uint8), [0], ["cat"]).read(0)
            b'P5 2 1 255\\n\\x00\\x00'
        """
        if self.rows is not None and self.pixels is not None:
            return to_file(self.pixels[self.rows[i]])
        if self.rows is not None and self.stored is not None:
            return self.stored(int(self.rows[i]))
        try:
            with open(os.path.join(self.root, self.names[i]), "rb") as file:
                return file.read()
        except OSError as error:
            raise ImageError(
                f"{self.names[i]} must be a readable file, got {error.strerror}; "
                "restore or remove it"
            ) from error

    def load(self, i: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Return image `i` as upright RGB; see `faultlens.data.decode.decode`.

        Raises:
            ImageError: The file cannot be read or decoded.
            InputError: It has more than `max_pixels` pixels.

        Example:
            >>> source = ImageSource.from_arrays(np.full((1, 2, 2), 7, np.uint8), [0], ["cat"])
            >>> source.load(0).getpixel((0, 0))
            (7, 7, 7)
        """
        return decode(self.read(i), max_pixels, self.names[i])

    def select(self, indices: Any) -> "ImageSource":
        """Return the images at `indices` ((M,) integers, or an (N,) mask), in that order.

        Raises:
            ShapeError: Neither integers nor a mask.
            InputError: An index outside 0 to N - 1.

        Example:
            >>> source = ImageSource(("a.png", "b.png"), np.array([0, 0]), ("cat",))
            >>> source.select([1, 0]).names
            ('b.png', 'a.png')
            >>> source.select(np.array([False, True])).names
            ('b.png',)
        """
        chosen = check_indices(indices, len(self))

        def pick(column: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if column is None else tuple(column[i] for i in chosen)

        return replace(
            self,
            names=pick(self.names) or (),
            labels=read_only(self.labels[chosen]),
            splits=pick(self.splits),
            subclasses=pick(self.subclasses),
            attributes={a: read_only(v[chosen]) for a, v in self.attributes.items()},
            rows=None if self.rows is None else read_only(self.rows[chosen]),
        )

    def split(self, name: str) -> "ImageSource":
        """Return the images of one split.

        Raises:
            InputError: No such split; the message shows the nearest.

        Example:
            >>> source = ImageSource(("a.png",), np.array([0]), ("cat",), splits=("test",))
            >>> source.split("tests")
            Traceback (most recent call last):
            faultlens.errors.InputError: split must be known, got 'tests'; did you mean 'test'?
        """
        if self.splits is None:
            raise InputError(
                f"split must not be given for images without splits, got '{name}'; leave it out, "
                "or sort the images into root/<split>/<class>, or add a column 'split'"
            )
        if name not in self.splits:
            raise InputError(f"split must be known, got '{name}'; {nearest(name, self.splits)}")
        return self.select([i for i, s in enumerate(self.splits) if s == name])

    def limit(self, n: int) -> "ImageSource":
        """Return `n` images in which every class keeps its share, and has at least one.

        Which ones is decided by a hash of their names: always the same, and those of a smaller
        `n` are among those of a larger. The order of the images stays.

        Raises:
            InputError: `n` is smaller than the number of classes that have images.

        Example:
            >>> names = tuple(f"{i}.png" for i in range(40))
            >>> source = ImageSource(names, np.repeat([0, 1], [30, 10]), ("cat", "dog"))
            >>> np.bincount(source.limit(8).labels)
            array([6, 2])
        """
        least = max(1, len(np.unique(self.labels)))
        if n < least:
            raise InputError(
                f"limit must be at least {least}, one image a class, got {n}; raise it"
            )
        return self.select(np.sort(stratified_order(self.names, self.labels)[:n]))

    def match_classes(self, model_class_names: Sequence[str]) -> "ImageSource":
        """Return the same images with labels that count in the model's order of classes.

        A model's class without images is allowed; see `classes_without_images`.

        Raises:
            InputError: Images of a class that the model does not have, or has twice.

        Example:
            >>> source = ImageSource(("1.png",), np.array([0]), ("dog",))
            >>> source.match_classes(["cat", "dog"]).labels
            array([1])
            >>> source.match_classes(["cat", "Dog"])
            Traceback (most recent call last):
            faultlens.errors.InputError: classes of the images must be the model's, got 1 unknown:
              'dog': did you mean 'Dog'?
            rename the folders, or the values of the column 'class'
        """
        used = {self.class_names[k]: k for k in np.unique(self.labels)}
        places = match(list(used), model_class_names)
        lookup = np.zeros(len(self.class_names), dtype=np.int64)
        lookup[list(used.values())] = list(places.values())
        labels = read_only(lookup[self.labels])
        return replace(self, labels=labels, class_names=tuple(model_class_names))

    def scan(self, max_pixels: int = MAX_PIXELS, progress: Progress | None = None) -> Scan:
        """Read and hash every file once, in threads, and judge its header; nothing is decoded.

        Raises:
            InputError: An image is larger than `max_pixels`.

        Example:
            >>> source = ImageSource.from_arrays(np.zeros((1, 2, 2), np.uint8), [0], ["cat"])
            >>> source.scan().digests[0][:8]
            '2b231cd8'
        """
        return scan_files(self.read, self.names, max_pixels, progress)


def open_images(path: str | os.PathLike[str]) -> ImageSource:
    """Open a folder of images, a CSV file that names them, or another kind of collection.

    Args:
        path: A folder or a CSV file; `KIND:PATH` with a kind of `faultlens.registry.IMAGES`; or a
            path whose kind its files tell, see `faultlens.data.kinds.kind_of`.

    Raises:
        InputError: None of these, or whatever is wrong with it.
        MissingDependencyError: The kind needs an extra that is not installed.

    Example:
        >>> open_images("no/such/place")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: images must be a folder or a CSV file, got 'no/such/place', ...
    """
    kind, path = kind_of(os.fspath(path))
    if kind is not None:
        source: ImageSource = IMAGES.load(kind)(path)
        return source
    check_exists(path, "a folder or a CSV file")
    if os.path.isdir(path):
        return ImageSource.from_folder(path)
    if not path.lower().endswith(".csv"):
        raise InputError(
            f"images must be a folder or a CSV file, got the file '{path}'; "
            "give the folder that holds the class folders"
        )
    return ImageSource.from_csv(path)


def _column(values: Any, name: str, dtype: Any) -> IntArray:
    return read_only(check_array(values, "N", name=name, kind="int").astype(dtype))


def _attribute(values: Any, name: str) -> IntArray:
    column = _column(np.asarray(values) + 0, name, np.int8)  # a mask becomes 0 and 1
    if not np.isin(column, (-1, 0, 1)).all():
        raise InputError(f"attribute {name} must hold 1, 0 or -1, got {sorted(set(column))}")
    return column
