"""Concept packs: vocabularies that come with the package, used by name, alone or together.

Wherever concepts are asked for, `rival10` and `vehicles+spurious` name packs, `mine.yaml` a file,
and `mine.yaml+spurious` both.
"""

from collections.abc import Sequence
from pathlib import Path

from faultlens.concepts import ClassEntry, ConceptEntry, ConceptFile, read_yaml
from faultlens.errors import InputError, nearest

_FOLDER = Path(__file__).parent / "assets" / "concepts"


class Combined(ConceptFile):
    """Concepts of packs and files as one.

    Classes of a pack are an offer: a model without them, or with other names for them, is no
    mistake. Classes of the user's own files must be the model's.

    Attributes:
        own_classes: The classes that the user's own files name.
    """

    own_classes: frozenset[str] = frozenset()

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse a file of the user that speaks of a class the model does not have."""
        for name in sorted(self.own_classes):
            if name not in classes:
                raise InputError(
                    f"concepts file names an unknown class '{name}'; {nearest(name, classes)}"
                )

    def entry_of(self, name: str) -> ClassEntry:
        """Return the entry of a class, found by its name or by another name for it."""
        called = name.replace("_", " ").casefold()
        others = (e for e in self.classes.values() if called in e.names)
        return self.classes.get(name) or next(others, ClassEntry())


def pack_names() -> tuple[str, ...]:
    """Return the names of the packs.

    Example:
        >>> pack_names()
        ('animals', 'rival10', 'scenes', 'spurious', 'textures-and-colours', 'vehicles')
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def pack_path(name: str) -> Path:
    """Return the file of a pack.

    Raises:
        InputError: There is no such pack; the message names the nearest.
    """
    if name not in pack_names():
        raise InputError(f"pack must be a known name, got '{name}'; {nearest(name, pack_names())}")
    return _FOLDER / f"{name}.yaml"


def read_concepts(spec: str | Path) -> ConceptFile:
    """Read concepts from a file, from a pack, or from several of them.

    Args:
        spec: A YAML file, the name of a pack, or several of either joined by `+`.

    Returns:
        The concepts of all. Where two give the same name, its prompts are those of both.

    Raises:
        InputError: Neither a file nor a pack, or a file is wrong.

    Example:
        >>> len(read_concepts("rival10").concepts)
        18
        >>> both = read_concepts("vehicles+spurious")
        >>> "tyres" in both.concepts, "watermark" in both.concepts
        (True, True)
        >>> read_concepts("rival")
        Traceback (most recent call last):
        faultlens.errors.InputError: concepts must be a file or a pack, got 'rival'; did you mean \
'rival10'?
    """
    if Path(spec).is_file():
        return ConceptFile.read(spec)
    parts = [(part, _file_of(part)) for part in str(spec).split("+")]
    read = [ConceptFile.parse(read_yaml(path), str(path), at_least=1) for _, path in parts]
    own = [file for file, (part, path) in zip(read, parts, strict=True) if Path(part) == path]
    concepts: dict[str, ConceptEntry] = {}
    classes: dict[str, ClassEntry] = {}
    for file in read:
        for name, entry in file.concepts.items():
            concepts[name] = _joined(concepts.get(name), entry, file.templates)
        for name, known in file.classes.items():
            classes[name] = _joined_class(classes.get(name, ClassEntry()), known)
    return Combined(
        class_templates=read[0].class_templates,
        concepts=concepts,
        classes=classes,
        own_classes=frozenset(name for file in own for name in file.classes),
    )


def placed(spec: str, folder: Path) -> Path:
    """Return a SPEC of concepts whose files count from a folder; packs stay as they are.

    Example:
        >>> placed("mine.yaml+spurious", Path("runs")).as_posix()
        'runs/mine.yaml+spurious'
    """
    if (folder / spec).is_file():
        return folder / spec
    parts = (
        part if part in pack_names() and not (folder / part).is_file() else str(folder / part)
        for part in spec.split("+")
    )
    return Path("+".join(parts))


def _file_of(part: str) -> Path:
    path = Path(part)
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path
    if part not in pack_names():
        raise InputError(
            f"concepts must be a file or a pack, got '{part}'; {nearest(part, pack_names())}"
        )
    return pack_path(part)


def _joined(
    known: ConceptEntry | None, entry: ConceptEntry, templates: tuple[str, ...]
) -> ConceptEntry:
    if known is None:
        return entry.model_copy(update={"templates": entry.templates or templates})
    prompts = tuple(dict.fromkeys((*known.prompts, *entry.prompts)))
    return known.model_copy(update={"prompts": prompts})


def _joined_class(known: ClassEntry, entry: ClassEntry) -> ClassEntry:
    return ClassEntry(
        names=tuple(dict.fromkeys((*known.names, *entry.names))),
        relevant=tuple(dict.fromkeys((*known.relevant, *entry.relevant))),
    )
