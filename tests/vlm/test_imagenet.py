"""The label texts: complete, in order, unique, and true where it is easy to say."""

from importlib.resources import files

import pytest
import yaml

from faultlens.vlm.imagenet import label_texts, read_labels

ANCHORS = {
    0: "tench", 7: "rooster", 24: "great grey owl", 50: "American alligator",
    75: "black widow spider", 100: "black swan", 101: "tusker", 125: "hermit crab",
    130: "flamingo", 150: "sea lion", 151: "Chihuahua", 175: "otterhound", 200: "Tibetan terrier",
    225: "malinois", 251: "dalmatian", 268: "Mexican hairless dog", 288: "leopard",
    293: "cheetah", 300: "tiger beetle", 326: "lycaenid", 340: "zebra", 355: "llama",
    386: "African elephant", 397: "puffer fish", 398: "abacus", 404: "airliner", 425: "barn",
    450: "bobsled", 475: "car mirror", 500: "cliff dwelling", 525: "dam", 550: "espresso maker",
    575: "golf cart", 600: "hook", 625: "lifeboat", 650: "microphone", 675: "moving van",
    700: "paper towel", 725: "water pitcher", 750: "quilt", 775: "sarong", 800: "slot machine",
    825: "stone wall", 850: "teddy bear", 875: "trombone", 900: "water tower", 925: "consomme",
    950: "orange", 970: "alp", 980: "volcano", 999: "toilet paper",
}  # fmt: skip


def groups():
    text = files("faultlens.vlm").joinpath("imagenet_labels.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["groups"]


def test_there_are_1000_labels_with_different_names():
    assert len(read_labels()) == len(label_texts()) == 1000


def test_no_name_or_synonym_stands_for_two_labels():
    names = [name.casefold() for label in read_labels() for name in label.names]
    assert sorted({n for n in names if names.count(n) > 1}) == []


@pytest.mark.parametrize(("index", "name"), ANCHORS.items())
def test_labels_are_in_the_order_of_the_logits(index, name):
    assert read_labels()[index].names[0] == name


def test_every_label_has_texts_without_repetition_or_blanks():
    for name, texts in label_texts().items():
        assert len(texts) >= 2, name
        assert len(set(texts)) == len(texts), name
        assert all(t == t.strip() and t for t in texts), name
        assert texts[0] == name


def test_groups_are_all_used_and_have_known_parents():
    known = groups()
    used = {kind for label in read_labels() for kind in label.kinds}
    assert used == set(known)
    assert {g["is"] for g in known.values() if "is" in g} <= set(known)


@pytest.mark.parametrize(
    ("name", "kind", "look"),
    [
        ("leopard", "cat", "whiskers"),
        ("dalmatian", "dog", "black spots"),
        ("zebra", "hoofed animal", "black and white stripes"),
        ("schooner", "watercraft", "tall masts"),
        ("airliner", "aircraft", "metal wings"),
        ("African elephant", "pachyderm", "long trunk"),
        ("loggerhead turtle", "reptile", "hard shell"),
        ("flamingo", "bird", "beak"),
        ("monarch butterfly", "insect", "antennae"),
    ],
)
def test_kinds_and_looks_are_inherited(name, kind, look):
    texts = label_texts()[name]
    assert kind in texts
    assert look in texts


def test_looks_that_would_be_false_are_absent():
    texts = label_texts()
    assert not any("rotor" in t for label in texts.values() for t in label)  # no helicopter label
    assert "claws" not in texts["spiny lobster"]
    assert "floppy ears" not in texts["Siberian husky"]
    assert "fur" not in texts["killer whale"]
    assert "two wheels" not in texts["unicycle"]
