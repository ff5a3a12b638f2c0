import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from typer.testing import CliRunner

from faultlens import suggesting
from faultlens.cli import app
from faultlens.concepts import ConceptFile
from faultlens.data.images import ImageSource
from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError, InsufficientDataError
from faultlens.files import save_arrays
from faultlens.models.head import Head
from faultlens.packs import read_concepts
from faultlens.session import DebugSession
from faultlens.validity import DECOYS
from planted import PLAIN

WORDS = ("wheels", "fur", "water", "sea", "snow", "road", "cat", "car", *DECOYS)
CANDIDATES = ConceptFile.parse(
    {
        "templates": ["{}"],
        "concepts": {
            "Fur": ["fur"], "snow": ["snow", "blizzard"], "lake": ["water"], "sea": ["sea"],
            "road": ["road"], "opera": ["opera"],
        },
    }
)  # fmt: skip
OWN = ConceptFile.parse(
    {"templates": ["{}"], "class_templates": ["{}"], "concepts": ["wheels", "fur"]}
)
N = 600


@dataclass
class Wordly:
    """Knows a list of words, one direction each; sea and water are nearly the same."""

    name: str = "wordly"
    content_hash: str = "wordly-1"
    dimension: int = len(WORDS)
    tensor_hashes: frozenset = frozenset()

    def prepare(self, image):
        raise NotImplementedError

    def encode(self, batch):
        raise NotImplementedError

    def encode_text(self, texts):
        for text in texts:
            if text not in WORDS:
                raise InputError(f"texts must be known words, got '{text}'")
        vectors = np.eye(len(WORDS), dtype=np.float32)[[WORDS.index(t) for t in texts]]
        for vector, text in zip(vectors, texts, strict=True):
            vector[WORDS.index("water")] += 3.0 * (text == "sea")
        return vectors


def features(path, n=N, seed=0, share_wrong=0.25):
    """Wrong images show more water; cats have more snow, right or wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    wrong = rng.random(n) < share_wrong * (0.4 + 1.2 * labels)
    v = rng.normal(0, 1, (n, len(WORDS))).astype(np.float32)
    for word, shown in (("cat", labels == 0), ("car", labels == 1), ("snow", labels == 0)):
        v[:, WORDS.index(word)] += 3.0 * shown
    v[:, WORDS.index("water")] += 1.5 * wrong
    predicted = np.where(wrong, 1 - labels, labels)
    z = np.c_[v @ rng.normal(size=(len(WORDS), 12)), predicted].astype(np.float32)
    logits = 4.0 * np.eye(2, dtype=np.float32)[predicted]
    save_arrays(
        path,
        {"embedding": z, "logits": logits, "label": labels, "vlm_embedding": v},
        {"class_names": json.dumps(["cat", "car"])},
    )
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suggesting")
    path = features(folder / "features.safetensors")
    return DebugSession.run(features=path, vlm=Wordly(), concepts=OWN, out=folder / "out")


@pytest.fixture
def _loadable(monkeypatch):
    """Let the session's SPEC find the stand-in."""
    monkeypatch.setattr("faultlens.features.load_vlm", lambda spec: Wordly())


def found(session, **settings):
    return suggesting.suggest(session, CANDIDATES, vlm=Wordly(), **settings)


def test_the_planted_word_is_chosen_and_what_only_tells_classes_apart_is_not(session):
    result = found(session)
    assert [s.concept for s in result.chosen] == ["lake"]
    lake, snow = (next(s for s in result.suggestions if s.concept == c) for c in ("lake", "snow"))
    assert lake.interval[0] > 0.7
    assert lake.p_value < 1e-6
    assert lake.decoy_quantile == 1.0
    assert snow.interval[0] < 0.5 < snow.interval[1]


def check_named_together(result):
    """Sea and water are nearly the same: one suggestion, under the name that ranks first."""
    both = [s for s in result.suggestions if {s.concept, *s.also} & {"lake", "sea"}]
    assert [{s.concept, *s.also} for s in both] == [{"lake", "sea"}]
    assert both[0].is_chosen
    names = [name for s in result.suggestions for name in (s.concept, *s.also)]
    assert len(names) == len(set(names))


def test_near_duplicates_are_named_together_and_what_the_session_has_is_left_out(session):
    result = found(session)
    check_named_together(result)
    assert not {s.concept for s in result.suggestions} & {"Fur", "wheels"}
    again = ConceptFile.parse({"templates": ["{}"], "concepts": {"wet": ["wheels"], "b": ["road"]}})
    marked = suggesting.suggest(session, again, vlm=Wordly()).suggestions
    assert {s.concept: s.like for s in marked} == {"wet": "wheels", "b": None}
    one = found(session, n=1).suggestions  # what says the same counts once
    assert {one[0].concept, *one[0].also} == {"lake", "sea"}


class Painter(Wordly):
    """Sees words in pictures: one cell of 4 x 4 pixels a word, as bright as there is of it."""

    def prepare(self, image):
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255

    def encode(self, batch):
        cells = batch.reshape(len(batch), 3, 4, len(WORDS), 4).mean(axis=(1, 2, 4))
        return {"embedding": (255 * cells - 120) / 60}


@dataclass
class Classifies(Painter):
    """Takes cats and cars by their cells, and the other way round where there is much water."""

    name: str = "classifies"
    content_hash: str = "classifies-1"
    dimension: int = 12
    tensor_hashes: frozenset = frozenset({"own"})
    class_names: tuple = ("cat", "car")
    preprocessing: Preprocessing = PLAIN
    head: Head = field(
        default_factory=lambda: Head((np.eye(2, 12, dtype=np.float32),), (np.zeros(2, np.float32),))
    )

    def encode(self, batch):
        seen = super().encode(batch)["embedding"]
        cat, car, water = (seen[:, WORDS.index(w)] for w in ("cat", "car", "water"))
        scores = np.where((water > 0.7)[:, None], np.c_[car, cat], np.c_[cat, car])
        z = np.zeros((len(batch), 12), np.float32)
        z[:, :2] = 8 * scores
        z[:, 2:] = seen[:, 2:12]
        return {"embedding": z, "logits": self.head(z)}


def pictures(n=N):
    """Every second picture repeats the one before it but for a pixel or two."""
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, 2, n // 2), 2)
    v = np.repeat(rng.normal(0, 0.5, (n // 2, len(WORDS))), 2, axis=0)
    v[np.arange(n), [WORDS.index("cat"), WORDS.index("car")][0] + labels] += 1.5
    v[:, WORDS.index("water")] += 1.0 * np.repeat(rng.random(n // 2) < 0.3, 2)
    pixels = np.clip(np.repeat(np.repeat(60 * v + 120, 4, axis=1)[:, None], 4, axis=1), 0, 255)
    pixels[1::2, 0, 0] += 1
    splits = tuple(np.where(rng.random(n // 2) < 0.7, "test", "fit").repeat(2))
    return ImageSource.from_arrays(
        np.clip(pixels, 0, 255).astype(np.uint8), labels, ["cat", "car"], splits=splits
    )


@pytest.mark.parametrize("reference", [None, "fit"])
def test_sessions_over_images_name_near_duplicates_together_too(tmp_path, monkeypatch, reference):
    source = pictures()
    monkeypatch.setattr("faultlens.reopen.open_images", lambda path: source)
    opened = DebugSession.run(
        Classifies(), images=source, split="test", reference_split=reference, vlm=Painter(),
        concepts=OWN, out=tmp_path,
    )  # fmt: skip
    assert opened.info["fit"]["is_cross_fitted"] == (reference is None)
    check_named_together(suggesting.suggest(opened, CANDIDATES, vlm=Painter()))
    part = suggesting._ranking_part(opened)
    place = {row["name"]: i for i, row in enumerate(opened.images)}
    pairs = [(place[f"array[{i}]"], place[f"array[{i + 1}]"]) for i in range(0, N, 2)
             if f"array[{i}]" in place]  # fmt: skip
    assert len(pairs) > 100
    assert all(part[a] == part[b] for a, b in pairs)
    assert 0.3 < part.mean() < 0.5


def test_what_the_session_has_takes_no_news_with_it():
    """A candidate like its concept does not swallow one that is like the candidate only."""
    likeness = np.array([[1.0, 0.95, 0.2], [0.95, 1.0, 0.95], [0.2, 0.95, 1.0]])
    order = np.arange(3)
    assert suggesting._grouped(order, likeness, ["wet", None, None]) == [[0], [1, 2]]
    assert suggesting._grouped(order, likeness, [None, None, None]) == [[0, 1], [2]]


def test_words_of_one_direction_are_the_same_on_any_images():
    directions = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    flat = np.ones((5, 3))  # strengths that never change correlate with nothing
    assert suggesting._likeness(flat, directions)[0].tolist() == [1.0, 1.0, 0.0]


def test_words_the_model_does_not_know_are_left_out_and_named(session):
    result = found(session)
    assert result.unknown == ("opera",)
    snow = next(s for s in result.suggestions if s.concept == "snow")
    assert snow.prompts == ("snow",)


def test_figures_come_from_images_that_did_not_rank(session):
    result = found(session, n=1)
    held = [row for row in session.images if row["fit"] % 2 == 0]
    assert result.n_wrong == sum(row["label"] != row["prediction"] for row in held)
    assert result.n_wrong + result.n_right == len(held)
    assert result.n_ranking == N - len(held)
    assert len(result.suggestions) == 1


def test_without_a_fault_nothing_is_chosen(tmp_path):
    """Words that say nothing about errors are chosen at most as often as the level says."""
    n_chosen = 0
    for seed in range(3):
        path = features(tmp_path / f"{seed}.safetensors", seed=seed + 10)
        out = tmp_path / f"out{seed}"
        opened = DebugSession.run(features=path, vlm=Wordly(), concepts=OWN, out=out)
        quiet = ConceptFile.parse({"templates": ["{}"], "concepts": ["snow", "road", "cat", "car"]})
        n_chosen += len(suggesting.suggest(opened, quiet, vlm=Wordly()).chosen)
    assert n_chosen == 0


def test_the_chosen_ones_can_be_fed_back(session, tmp_path):
    path = tmp_path / "more.yaml"
    found(session).write(path)
    (tmp_path / "mine.yaml").write_text("concepts: [wheels, fur]")
    both = read_concepts(f"{tmp_path / 'mine.yaml'}+{path}")
    assert tuple(both.concepts) == ("wheels", "fur", "lake")
    assert both.concepts["lake"].prompts == ("water",)
    assert both.concepts["lake"].templates == ("{}",)


def test_too_few_errors_are_told(tmp_path):
    path = features(tmp_path / "few.safetensors", share_wrong=0.03)
    opened = DebugSession.run(features=path, vlm=Wordly(), concepts=OWN, out=tmp_path / "out")
    with pytest.raises(InsufficientDataError, match="at least 10 wrong and 10 right"):
        found(opened)


def test_mistakes_are_told(session):
    with pytest.raises(InputError, match="n must be at least 1, got 0"):
        found(session, n=0)
    nothing = ConceptFile.parse({"templates": ["{}"], "concepts": ["opera", "fur"]})
    with pytest.raises(InputError, match="the session lacks"):
        suggesting.suggest(session, nothing, vlm=Wordly())


@pytest.mark.usefixtures("_loadable")
def test_the_command_prints_a_table_or_json_and_writes_the_chosen(session, tmp_path):
    vocabulary, out = tmp_path / "v.yaml", tmp_path / "more.yaml"
    vocabulary.write_text("{templates: ['{}'], concepts: {lake: [water], road: [road]}}")
    command = ["concepts", "suggest", str(session.folder), "--vocabulary", str(vocabulary)]
    shown = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "1 chosen of 2 candidates" in shown.stdout
    assert "lake" in out.read_text()
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [s["concept"] for s in told["suggestions"] if s["is_chosen"]] == ["lake"]
    assert told["file"] is None


def test_the_packs_are_listed_and_shown():
    listed = CliRunner().invoke(app, ["concepts", "list", "--json"])
    assert {p["pack"]: p["n"] for p in json.loads(listed.stdout)}["rival10"] == 18
    shown = CliRunner().invoke(app, ["concepts", "show", "rival10"])
    assert shown.stdout.startswith("# The 18 attributes")
    missing = CliRunner().invoke(app, ["concepts", "show", "rivl10"])
    assert missing.exit_code == 2
    assert "did you mean 'rival10'?" in missing.stderr
