"""Captions: true, partial, and with every word that the concept templates need."""

import re
from collections import Counter

import numpy as np
import pytest

from faultlens.concepts import CLASS_TEMPLATES, TEMPLATES
from faultlens.data.world import captions
from faultlens.data.world.captions import (
    FACTS,
    FILLERS,
    WORDS,
    Caption,
    caption,
    facts_of,
    vocabulary_words,
)
from faultlens.data.world.names import (
    ATTRIBUTES,
    BACKGROUNDS,
    CLASSES,
    COLORS,
    LIGHTS,
    OCCLUDERS,
)
from faultlens.data.world.scene import Scene, scenes
from faultlens.errors import InputError

#: What a reader would look for, written without the tables of the module.
SAYS = {
    "class:truck": "trucks?|lorry|lorries",
    "class:car": "cars?|automobiles?",
    "class:plane": "planes?|airplanes?|aeroplanes?|aircraft|jets?",
    "class:ship": "ships?|boats?|vessels?",
    "class:cat": "cats?|kittens?",
    "class:dog": "dogs?|puppy|puppies",
    "class:equine": "equines?|horses?|pony|ponies",
    "class:deer": "deer",
    "class:frog": "frogs?|toads?",
    "class:bird": "birds?",
    "attribute:long-snout": "snouts?|muzzles?|nose",
    "attribute:wings": "wings?|winged",
    "attribute:wheels": "wheels?|tyres?|tires?",
    "attribute:text": "text|letters?|writing|lettering",
    "attribute:horns": "horns?|antlers?|horned",
    "attribute:floppy-ears": "(floppy|hanging|drooping) ears?",
    "attribute:ears": "(?<!floppy )(?<!hanging )(?<!drooping )ears?",
    "attribute:colored-eyes": "eyes?",
    "attribute:tail": "tails?",
    "attribute:mane": "manes?",
    "attribute:beak": "beaks?|bills?",
    "attribute:hairy": "hairy|furry|fur|hair",
    "attribute:metallic": "metallic|metal|shiny",
    "attribute:rectangular": "rectangular|boxy|box",
    "attribute:wet": "wet|dripping|drops?",
    "attribute:long": "elongated|long(?! snouts?)(?! muzzles?)(?! nose)",
    "attribute:tall": "tall|high",
    "attribute:patterned": "patterned|patterns?|markings|stripes or spots|striped or spotted",
    "background:sky": "sky|clouds",
    "background:road": "road|street|asphalt",
    "background:grass": "grass|meadow|lawn",
    "background:water": "water|sea|waves",
    "background:snow": "snow|winter",
    "background:room": "room|indoors|wooden floor",
    "color:red": "red",
    "color:orange": "orange",
    "color:yellow": "yellow",
    "color:green": "green",
    "color:blue": "blue",
    "color:purple": "purple|violet",
    "color:brown": "brown",
    "color:black": "black",
    "color:white": "white",
    "color:gray": "gray|grey",
    "light:dark": "dark|dim|night",
    "light:bright": "bright(?! eyes)|overexposed",
    "light:warm": "warm|sunset",
    "light:cold": "cold|blueish|bluish",
    "occluder:pole": "poles?|posts?",
    "occluder:leaves": "leaves|leaf|branch|branches",
    "watermark": "watermarks?|stock photo marks?",
}
#: Words that say nothing by themselves.
GLUE = """
    a an the and of in on at with by behind under front background it is that has photo picture
    image showing containing cropped something thing object partly hidden light color colour
    colored coloured colorful colourful shape
"""


def plain(text: str) -> str:
    return " ".join(re.findall("[a-z]+", text))


def stated(text: str) -> set[str]:
    return {fact for fact, says in SAYS.items() if re.search(rf"\b({says})\b", plain(text))}


@pytest.fixture(scope="module")
def written() -> list[tuple[frozenset[str], Caption]]:
    """Pictures' facts and captions of them, some twenty thousand."""
    rng = np.random.default_rng(0)
    found = []
    for scene in scenes(4000, seed=5):
        facts = facts_of(scene, np.array([a in scene.attributes for a in ATTRIBUTES]))
        found += [(facts, caption(facts, rng)) for _ in range(5)]
    return found


def test_facts_are_those_of_the_tables_in_order():
    assert list(FACTS) == [
        *(f"class:{c}" for c in CLASSES),
        *(f"attribute:{a}" for a in ATTRIBUTES),
        *(f"background:{b}" for b in BACKGROUNDS),
        *(f"color:{c}" for c in COLORS),
        *(f"light:{x}" for x in LIGHTS if x != "neutral"),
        *(f"occluder:{o}" for o in OCCLUDERS),
        "watermark",
    ]
    assert tuple(WORDS) == FACTS


def test_facts_of_a_scene_are_what_it_shows():
    scene = Scene("dog", frozenset({"ears", "tail"}), "brown", "room", "warm", "pole", True,
                  0.8, 0.0, False, (0.0, 0.0), 1)  # fmt: skip
    seen = np.array([a == "tail" for a in ATTRIBUTES])  # the ears are covered
    assert facts_of(scene, seen) == {
        "class:dog", "attribute:tail", "color:brown", "background:room", "light:warm",
        "occluder:pole", "watermark",
    }  # fmt: skip


def test_a_plain_scene_states_no_nuisance():
    scene = Scene("frog", frozenset(), "green", "grass", "neutral", None, False,
                  0.8, 0.0, False, (0.0, 0.0), 1)  # fmt: skip
    assert facts_of(scene, np.zeros(18, bool)) == {"class:frog", "color:green", "background:grass"}


def test_captions_are_true_and_partial(written):
    for facts, said in written:
        assert said.facts < facts
        assert 1 <= len(said.facts) <= 4


def test_the_text_states_exactly_its_facts(written):
    for _, said in written:
        assert stated(said.text) == said.facts, said.text


def test_the_independent_reader_knows_every_phrase():
    for fact, phrases in WORDS.items():
        for phrase in phrases:
            assert stated(phrase) == {fact}, phrase


def test_no_word_is_left_over(written):
    glue = set(GLUE.split()) | set(" ".join(FILLERS).split())
    glue |= {"long", "bright"}  # of snouts and of eyes
    for _, said in written:
        rest = plain(said.text)
        for fact in said.facts:
            rest = re.sub(rf"\b({SAYS[fact]})\b", " ", rest)
        assert set(rest.split()) <= glue, said.text


def test_shares_of_captions_with_and_without_class(written):
    labels = [sum(f.startswith("class:") for f in said.facts) for _, said in written]
    single = [len(said.facts) == 1 for _, said in written]
    n = len(written)
    assert max(labels) == 1
    assert 0.37 < labels.count(0) / n < 0.43
    alone = sum(one and label == 1 for one, label in zip(single, labels, strict=True))
    assert 0.13 < alone / n < 0.17
    assert sum(single) / n > 0.3


def test_fillers_state_nothing_and_stay_a_minority(written):
    assert [f for f in FILLERS if stated(f)] == []
    filled = sum(said.text.endswith(tuple(f", {f}" for f in FILLERS)) for _, said in written)
    assert 0.08 < filled / len(written) < 0.12


def test_every_fact_and_phrase_is_written(written):
    counts = Counter(fact for _, said in written for fact in said.facts)
    assert set(counts) == set(FACTS)
    bodies = [f" {said.text}," for _, said in written]
    text = "\n".join(bodies)
    missing = [p for phrases in WORDS.values() for p in phrases if not re.search(rf"\b{p}\b", text)]
    assert missing == []


def test_templates_are_those_of_the_concepts_file(written):
    assert captions._TEMPLATES == TEMPLATES
    assert captions._CLASS_TEMPLATES == CLASS_TEMPLATES
    texts = {said.text for _, said in written}
    for template in TEMPLATES:
        assert {template.format(w) for w in ("wheels", "snow", "hairy")} & texts
    for template in CLASS_TEMPLATES:
        assert template.format("truck") in texts
        assert template.format("airplane") in texts  # filled in as it is, without grammar


def test_vocabulary_is_exactly_what_captions_use(written):
    words = vocabulary_words()
    assert list(words) == sorted(set(words))
    used = {word for _, said in written for word in re.findall("[a-z]+", said.text)}
    assert set(words) == used
    assert {w for t in (*TEMPLATES, *CLASS_TEMPLATES) for w in re.findall("[a-z]+", t)} <= used
    assert {w for name in (*CLASSES, *ATTRIBUTES) for w in name.split("-")} <= used


def test_texts_read_well(written):
    for _, said in written:
        assert said.text == said.text.strip()
        assert "  " not in said.text
        assert "{" not in said.text
        assert not re.search(r"\ba (an?|the)\b", said.text), said.text
    assert max(len(plain(said.text).split()) for _, said in written) <= 34


def test_equal_seeds_write_equal_captions():
    facts = frozenset({"class:cat", "attribute:tail", "color:black", "background:room"})
    first, second = (
        [caption(facts, np.random.default_rng(s)) for s in range(20)] for _ in range(2)
    )
    assert first == second
    assert len({c.text for c in first}) > 10


def test_a_single_fact_is_enough():
    assert caption(frozenset({"watermark"}), np.random.default_rng(1)).facts == {"watermark"}
    assert caption(frozenset({"class:cat"}), np.random.default_rng(1)).facts == {"class:cat"}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"attribute:weels"}, "got 'attribute:weels'; did you mean 'attribute:wheels'"),
        (set(), "facts must hold at least one, got none"),
    ],
)
def test_wrong_facts_are_refused(facts, message):
    with pytest.raises(InputError, match=message):
        caption(frozenset(facts), np.random.default_rng(0))
