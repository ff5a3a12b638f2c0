from collections import Counter

import numpy as np
import pytest
import yaml

from faultlens.concepts import ConceptFile, Vocabulary
from faultlens.config import RunConfig
from faultlens.data.rival10 import ATTRIBUTES
from faultlens.data.world.names import CLASSES
from faultlens.errors import InputError
from faultlens.packs import pack_names, pack_path, placed, read_concepts

GENERAL = ("vehicles", "animals", "scenes", "textures-and-colours")
FILES = {name: ConceptFile.read(pack_path(name)) for name in pack_names()}


def plain(text):
    return " ".join(text.casefold().replace("-", " ").split())


def repeated(values):
    return [value for value, n in Counter(values).items() if n > 1]


@pytest.mark.parametrize("name", FILES)
def test_a_pack_names_itself_its_version_and_its_purpose(name):
    raw = yaml.safe_load(pack_path(name).read_text(encoding="utf-8"))
    assert raw["pack"] == name
    assert raw["version"] == 1
    assert 20 < len(raw["about"]) < 100
    assert len(raw["concepts"]) == len(FILES[name].concepts)


@pytest.mark.parametrize("name", FILES)
def test_every_concept_has_three_prompts_of_its_own(name):
    for concept, entry in FILES[name].concepts.items():
        assert len(entry.prompts) >= 3, concept
        assert all(p == p.strip() and p for p in entry.prompts), concept


def test_no_name_and_no_prompt_appears_twice_in_all_packs():
    assert repeated(plain(c) for file in FILES.values() for c in file.concepts) == []
    entries = [e for file in FILES.values() for e in file.concepts.values()]
    assert repeated(plain(p) for e in entries for p in e.prompts) == []


def test_a_name_that_is_a_prompt_is_one_of_its_own():
    owner = {plain(p): c for f in FILES.values() for c, e in f.concepts.items() for p in e.prompts}
    for file in FILES.values():
        for concept in file.concepts:
            assert owner.get(plain(concept), concept) == concept


def test_the_general_packs_hold_at_least_300_concepts():
    assert sum(len(FILES[name].concepts) for name in GENERAL) >= 300
    assert len(FILES["spurious"].concepts) >= 30


def test_rival10_has_the_attributes_and_classes_of_the_data_set():
    file = FILES["rival10"]
    assert tuple(file.concepts) == ATTRIBUTES
    assert tuple(file.classes) == CLASSES
    assert set(file.classes["equine"].relevant) >= {"mane", "tail", "ears"}
    used = {c for entry in file.classes.values() for c in entry.relevant}
    assert used == set(ATTRIBUTES)


def test_packs_are_added_up():
    both = read_concepts("vehicles+spurious")
    assert len(both.concepts) == len(FILES["vehicles"].concepts) + len(FILES["spurious"].concepts)
    # Each concept keeps the sentences of its own pack.
    assert both.concepts["tyres"].templates == FILES["vehicles"].templates
    assert both.concepts["watermark"].templates == FILES["spurious"].templates


def test_a_file_and_a_pack_share_what_they_both_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("concepts: {wheels: [hub caps], fog lamps: [fog lamps]}")
    found = read_concepts(f"{path}+rival10")
    assert found.concepts["wheels"].prompts == (
        "hub caps",
        *FILES["rival10"].concepts["wheels"].prompts,
    )
    assert len(found.concepts) == 19


def encode(texts):
    return np.stack([np.random.default_rng(len(t)).normal(size=8) for t in texts])


def test_classes_of_a_pack_are_an_offer_found_under_other_names_too():
    file = read_concepts("rival10")
    found = Vocabulary.build(file, ("automobile", "teapot"), encode)
    wheels, wings = found.concepts.index("wheels"), found.concepts.index("wings")
    assert found.relevant[0, wheels]
    assert not found.relevant[0, wings]
    assert not found.relevant[1].any()


def test_classes_of_an_own_file_must_be_the_models_even_beside_a_pack(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{concepts: [fog lamps], classes: {trcuk: {relevant: [fog lamps]}}}")
    file = read_concepts(f"rival10+{path}")
    with pytest.raises(InputError, match="unknown class 'trcuk'; did you mean 'truck'"):
        file.check_classes(CLASSES)


def test_an_unknown_pack_names_the_nearest():
    with pytest.raises(InputError, match="got 'vehicle'; did you mean 'vehicles'"):
        read_concepts("spurious+vehicle")
    with pytest.raises(InputError, match=r"mine\.yaml must be a file, but there is none"):
        read_concepts("mine.yaml+spurious")


def test_another_version_of_the_form_is_refused(tmp_path):
    path = tmp_path / "later.yaml"
    path.write_text("{version: 2, concepts: [a, b]}")
    with pytest.raises(InputError, match="'version' is wrong"):
        read_concepts(path)


def test_a_configuration_names_packs_and_files_of_its_own_folder(tmp_path):
    (tmp_path / "mine.yaml").write_text("concepts: [a, b]")
    config = tmp_path / "faultlens.yaml"
    config.write_text("{features: f.st, vlm: demo, concepts: mine.yaml+rival10, out: out}")
    read = RunConfig.read(config)
    assert str(read.concepts) == f"{tmp_path / 'mine.yaml'}+rival10"
    assert placed("rival10", tmp_path).as_posix() == "rival10"
