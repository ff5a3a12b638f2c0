"""Captions of ConceptWorld: sentences that state some of what is true of a picture, and no more.

A *fact* is one true thing, such as `class:truck`, `attribute:wheels`, `background:snow`,
`color:red`, `light:dark`, `occluder:pole` or `watermark`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from faultlens.data.world.names import ATTRIBUTES
from faultlens.data.world.scene import Scene, check_names
from faultlens.errors import InputError

#: What people write for a fact, the usual phrase first. Nothing here says more than the fact:
#: a zebra would be patterned, a stag would have horns. Classes may also be in the plural.
WORDS: dict[str, tuple[str, ...]] = {
    "class:truck": ("truck", "lorry"),
    "class:car": ("car", "automobile"),
    "class:plane": ("plane", "airplane", "aeroplane", "aircraft", "jet"),
    "class:ship": ("ship", "boat", "vessel"),
    "class:cat": ("cat", "kitten"),
    "class:dog": ("dog", "puppy"),
    "class:equine": ("equine", "horse", "pony"),
    "class:deer": ("deer",),
    "class:frog": ("frog", "toad"),
    "class:bird": ("bird",),
    "attribute:long-snout": (
        "long snout", "long muzzle", "long-snout", "long nose", "long snouts", "long muzzles",
    ),
    "attribute:wings": ("wings", "wing", "winged"),
    "attribute:wheels": ("wheels", "tyres", "tires", "wheel", "tyre", "tire"),
    "attribute:text": ("text", "letters", "writing", "lettering", "letter"),
    "attribute:horns": ("horns", "antlers", "horn", "antler", "horned"),
    "attribute:floppy-ears": (
        "floppy ears", "hanging ears", "drooping ears", "floppy-ears", "floppy ear",
    ),
    "attribute:ears": ("ears", "ear"),
    "attribute:colored-eyes": (
        "colored eyes", "coloured eyes", "bright eyes", "colored-eyes", "colorful eyes",
        "colourful eyes", "colored eye", "coloured eye",
    ),
    "attribute:tail": ("tail", "tails"),
    "attribute:mane": ("mane", "manes"),
    "attribute:beak": ("beak", "bill", "beaks", "bills"),
    "attribute:hairy": ("hairy", "fur", "furry", "hair"),
    "attribute:metallic": ("metallic", "metal", "shiny metal", "shiny"),
    "attribute:rectangular": ("rectangular", "boxy", "rectangular shape", "box shape"),
    "attribute:wet": ("wet", "dripping", "drops", "drop"),
    "attribute:long": ("long", "elongated"),
    "attribute:tall": ("tall", "high"),
    "attribute:patterned": (
        "patterned", "pattern", "stripes or spots", "patterns", "markings", "striped or spotted",
    ),
    "background:sky": ("sky", "clouds", "sky background"),
    "background:road": ("road", "street", "asphalt", "road background"),
    "background:grass": ("grass", "meadow", "lawn", "grass background"),
    "background:water": ("water", "sea", "waves", "water background"),
    "background:snow": ("snow", "winter", "snow background"),
    "background:room": ("room", "indoors", "wooden floor", "room background"),
    "color:red": ("red", "red color", "red colour"),
    "color:orange": ("orange", "orange color", "orange colour"),
    "color:yellow": ("yellow", "yellow color", "yellow colour"),
    "color:green": ("green", "green color", "green colour"),
    "color:blue": ("blue", "blue color", "blue colour"),
    "color:purple": ("purple", "violet", "purple color", "purple colour"),
    "color:brown": ("brown", "brown color", "brown colour"),
    "color:black": ("black", "black color", "black colour"),
    "color:white": ("white", "white color", "white colour"),
    "color:gray": ("gray", "grey", "gray color", "grey colour"),
    "light:dark": ("dark", "dim light", "night"),
    "light:bright": ("bright light", "overexposed", "bright"),
    "light:warm": ("warm light", "sunset light", "sunset"),
    "light:cold": ("cold light", "blueish light", "bluish light"),
    "occluder:pole": ("pole", "post", "poles", "posts"),
    "occluder:leaves": ("leaves", "branch", "leaf", "branches"),
    "watermark": ("watermark", "stock photo mark", "watermarks"),
}  # fmt: skip

#: Every fact, in the order of the tables in `faultlens.data.world.names`.
FACTS: tuple[str, ...] = tuple(WORDS)

# As a concepts file fills them by default, whatever the grammar of the phrase.
_TEMPLATES = (
    "{}", "a photo of something with {}", "a picture showing {}", "something with {}",
    "{} in a photo",
)  # fmt: skip
_CLASS_TEMPLATES = (
    "{}", "a photo of a {}", "a picture of the {}", "a photo containing a {}",
    "a cropped photo of a {}",
)  # fmt: skip
_ADJECTIVE_TEMPLATES = ("a photo of something that is {}", "something that is {}", "a {} thing")
_OTHER_TEMPLATES = ("a photo of {}", "a photo with {}", "an image of {}", "{} in the picture")

_ADJECTIVES = {
    "winged", "horned", "hairy", "furry", "metallic", "shiny", "rectangular", "boxy", "wet",
    "dripping", "long", "elongated", "tall", "high", "patterned", "striped or spotted", "red",
    "orange", "yellow", "green", "blue", "purple", "violet", "brown", "black", "white", "gray",
    "grey", "dark", "overexposed", "bright",
}  # fmt: skip
_UNCOUNTED = {
    "text", "writing", "lettering", "fur", "hair", "metal", "asphalt", "grass", "water", "snow",
    "winter", "indoors", "night", "light", "color", "colour", "sunset",
}  # fmt: skip
_PLACES = {
    "sky": "in the sky", "clouds": "in front of clouds", "road": "on a road",
    "street": "on a street", "asphalt": "on asphalt", "grass": "on grass",
    "meadow": "on a meadow", "lawn": "on a lawn", "water": "on the water", "sea": "on the sea",
    "waves": "in the waves", "snow": "on snow", "winter": "in winter", "room": "in a room",
    "indoors": "indoors", "wooden floor": "on a wooden floor", "night": "at night",
    "sunset": "at sunset",
}  # fmt: skip
_CLAUSES = {
    "background": ("with {} in the background", "with {} behind it", "in front of {}"),
    "light": ("in {}",),
    "occluder": ("behind {}", "with {} in front of it", "partly hidden by {}"),
    "watermark": ("with {}", "with {} on it", "under {}"),
}
_PARTS = ("with {}", "that has {}")
_OPENINGS = (
    "a photo of ", "a picture of ", "a picture showing ", "an image of ", "a cropped photo of ",
    "a photo containing ", "a photo with ",
)  # fmt: skip
_LIT_OPENINGS = ("{} photo of ", "{} picture of ")
_THINGS = ("thing", "object")
_JOINTS = (", ", " and ")
_UNCHANGED = {"deer", "aircraft"}  # in the plural

#: Words that say nothing about a picture, and are in captions all the same.
FILLERS = (
    "thursday", "therefore", "seven", "opinion", "grammar", "percent", "yesterday", "algebra",
    "permission", "rumour", "interest rate", "philosophy", "deadline", "syllable", "warranty",
    "coincidence", "password", "nostalgia", "theorem", "subscription",
)  # fmt: skip
_FILLED = 0.1

_ORDER = {fact: i for i, fact in enumerate(FACTS)}
_CLASS_ALONE, _WITH_CLASS = 0.15, 0.6  # bounds of chance; above: without the class
_PLURAL = 0.1
_MORE = (0.5, 0.75, 0.9)  # chance below which 1, 2, 3 facts beside the class are stated, else 4


@dataclass(frozen=True, slots=True)
class Caption:
    """A text about a picture.

    Attributes:
        text: Lower case, at most 34 words, without a full stop.
        facts: What it states; everything else is left open, not denied.
    """

    text: str
    facts: frozenset[str]


def facts_of(scene: Scene, attributes: Bool[np.ndarray, "18"]) -> frozenset[str]:
    """Return all facts of a picture.

    Args:
        scene: What was rendered.
        attributes: Which attributes are visible, in the order of `ATTRIBUTES`.

    Example:
        >>> from faultlens.data.world.scene import draw
        >>> scene = draw(np.random.default_rng(7), label="bird", background="snow")
        >>> facts = facts_of(scene, np.array([a == "beak" for a in ATTRIBUTES]))
        >>> sorted(f for f in facts if f.split(":")[0] in ("class", "attribute", "background"))
        ['attribute:beak', 'background:snow', 'class:bird']
    """
    facts = {f"class:{scene.label}", f"background:{scene.background}", f"color:{scene.color}"}
    facts |= {f"attribute:{a}" for a, seen in zip(ATTRIBUTES, attributes, strict=True) if seen}
    if scene.light != "neutral":
        facts.add(f"light:{scene.light}")
    if scene.occluder is not None:
        facts.add(f"occluder:{scene.occluder}")
    if scene.watermark:
        facts.add("watermark")
    return frozenset(facts)


def caption(facts: frozenset[str], rng: np.random.Generator) -> Caption:
    """Write one caption of a picture: one to four of its facts, never all where it has several.

    The class alone in 15 of 100 captions, with other facts in 45, unmentioned in 40.

    Args:
        facts: Of the picture, from `facts_of`.
        rng: Source of chance.

    Raises:
        InputError: There is no fact, or an unknown one.

    Example:
        >>> facts = frozenset({"class:truck", "attribute:wheels", "background:snow", "color:red"})
        >>> written = caption(facts, np.random.default_rng(1))
        >>> written.text, sorted(written.facts)
        ('a red lorry with a tyre', ['attribute:wheels', 'class:truck', 'color:red'])
    """
    if not facts:
        raise InputError("facts must hold at least one, got none; take those of facts_of")
    check_names(facts, _ORDER, "facts")
    chosen = _choose(sorted(facts, key=_ORDER.__getitem__), rng)
    if len(chosen) == 1 and rng.random() < 0.7:
        text = _short(chosen[0], rng)
    elif len(chosen) > 1 and rng.random() < 0.15:
        text = _pick(_JOINTS, rng).join(_phrase(fact, rng) for fact in _shuffled(chosen, rng))
    else:
        text = _sentence({fact: _phrase(fact, rng) for fact in _shuffled(chosen, rng)}, rng)
    if rng.random() < _FILLED:
        text = f"{text}, {_pick(FILLERS, rng)}"
    return Caption(text, frozenset(chosen))


def empty_caption(rng: np.random.Generator) -> Caption:
    """Write a caption that says nothing about any picture.

    Example:
        >>> empty_caption(np.random.default_rng(0)).facts
        frozenset()
    """
    return Caption(_pick(_TEMPLATES, rng).format(_pick(FILLERS, rng)), frozenset())


def vocabulary_words() -> tuple[str, ...]:
    """Return every word that a caption may contain, sorted.

    Example:
        >>> words = vocabulary_words()
        >>> [word in words for word in ("wheels", "something", "giraffe")]
        [True, True, False]
    """
    frames = (
        *_TEMPLATES, *_CLASS_TEMPLATES, *_ADJECTIVE_TEMPLATES, *_OTHER_TEMPLATES, *_PARTS,
        *_OPENINGS, *_LIT_OPENINGS, *FILLERS, *_THINGS, *_JOINTS, *_PLACES.values(), "an", "the",
    )  # fmt: skip
    plurals = [_plural(w) for fact, ws in WORDS.items() if _kind(fact) == "class" for w in ws]
    texts = [*frames, *plurals, *(t for ts in (*WORDS.values(), *_CLAUSES.values()) for t in ts)]
    return tuple(sorted({word for text in texts for word in re.findall(r"[a-z]+", text)}))


def _choose(facts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Choose what to state."""
    labels = [fact for fact in facts if _kind(fact) == "class"]
    others = [fact for fact in facts if _kind(fact) != "class"]
    u, v = rng.random(2).tolist()
    if not others or (labels and u < _CLASS_ALONE):
        return labels
    stated = labels if u < _WITH_CLASS else []
    n = min(1 + sum(v > bound for bound in _MORE), 4 - len(stated))
    n = min(n, max(1, len(facts) - 1 - len(stated)))
    return [*stated, *_shuffled(others, rng)[:n]]


def _short(fact: str, rng: np.random.Generator) -> str:
    """Write a single fact as the prompts of a concepts file are written."""
    phrase = _phrase(fact, rng)
    if _kind(fact) == "class":
        if rng.random() < _PLURAL:
            return _pick(_OTHER_TEMPLATES, rng).format(_plural(phrase))
        if rng.random() < 0.8:
            return _pick(_CLASS_TEMPLATES, rng).format(phrase)
    if rng.random() < 0.7:
        phrase = _with_article(phrase) if rng.random() < 0.2 else phrase
        return _pick(_TEMPLATES, rng).format(phrase)
    if phrase in _ADJECTIVES:
        return _pick(_ADJECTIVE_TEMPLATES, rng).format(phrase)
    return _pick(_OTHER_TEMPLATES, rng).format(_with_article(phrase))


def _sentence(phrases: dict[str, str], rng: np.random.Generator) -> str:
    """Write facts as prose: opening, subject, what it has, then what is around it."""
    of_object = {f: p for f, p in phrases.items() if _kind(f) in ("attribute", "color")}
    adjectives = [p for p in of_object.values() if p in _ADJECTIVES]
    parts = [_with_article(p) for p in of_object.values() if p not in _ADJECTIVES]
    label = next((p for f, p in phrases.items() if _kind(f) == "class"), None)
    is_plural = label is not None and rng.random() < _PLURAL
    words = [_subject(_plural(label) if label and is_plural else label, adjectives, rng)]
    if parts:
        has = _PARTS[0] if is_plural else _pick(_PARTS, rng)
        words.append(has.format(" and ".join(parts)))
    opening = _pick(_OPENINGS, rng) if rng.random() < 0.5 else ""
    for fact, phrase in phrases.items():
        if _kind(fact) == "light" and phrase in _ADJECTIVES:
            opening = _with_article(_pick(_LIT_OPENINGS, rng).format(phrase))
        elif _kind(fact) in _CLAUSES:
            words.append(_clause(_kind(fact), phrase, rng))
    return opening + " ".join(words)


def _subject(label: str | None, adjectives: list[str], rng: np.random.Generator) -> str:
    """Name what the picture shows; as a thing where the class is not stated."""
    if label is None and rng.random() < 0.5:
        return " ".join(["something", " and ".join(adjectives)]).strip()
    noun = " ".join([*adjectives, label or _pick(_THINGS, rng)])
    return f"the {noun}" if rng.random() < 0.15 else _with_article(noun)


def _clause(kind: str, phrase: str, rng: np.random.Generator) -> str:
    place = _PLACES.get(phrase)
    if place is not None and (phrase in ("indoors", "winter") or rng.random() < 0.6):
        return place
    if phrase.endswith("background"):
        return f"with {_with_article(phrase)}"
    return _pick(_CLAUSES[kind], rng).format(_with_article(phrase))


def _phrase(fact: str, rng: np.random.Generator) -> str:
    """Return the usual phrase or any."""
    return WORDS[fact][0] if rng.random() < 0.4 else _pick(WORDS[fact], rng)


def _with_article(phrase: str) -> str:
    last = phrase.rsplit(maxsplit=1)[-1]
    if phrase in _ADJECTIVES or last.endswith("s") or last in _UNCOUNTED:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _plural(noun: str) -> str:
    if noun in _UNCHANGED:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def _kind(fact: str) -> str:
    return fact.partition(":")[0]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.random() * len(options))]


def _shuffled(items: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [items[i] for i in rng.permutation(len(items))]
