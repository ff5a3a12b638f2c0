import pytest

from faultlens.errors import InputError
from faultlens.models.description import EXAMPLE_YAML, ModelDescription, resolve

GOOD = """
classes: [cat, dog]
preprocessing:
  resize: 8
  mean: [0, 0, 0]
  std: [1, 1, 1]
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "net.yaml"
        path.write_text(text)
        return ModelDescription.read(path)

    return read


def test_a_file_is_read_in_full(read):
    description = read(GOOD + "split_at: pool\n")
    assert description.classes == ("cat", "dog")
    assert description.preprocessing.resize == 8
    assert description.preprocessing.scale == 1 / 255
    assert description.split_at == "pool"


def test_the_example_is_a_valid_file(read):
    description = read(EXAMPLE_YAML)
    assert description.preprocessing.crop == 224
    assert description.preprocessing.scale == pytest.approx(1 / 255, rel=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("classes:", "clases:", "unknown key 'clases'; did you mean 'classes'"),
        ("mean:", "maen:", "unknown key 'preprocessing.maen'; did you mean 'mean'"),
        ("classes: [cat, dog]", "", "'classes' must be given"),
        ("  mean: [0, 0, 0]\n", "", "'preprocessing.mean' must be given"),
        ("dog", "cat", "classes must all differ, got 'cat' twice"),
        ("[cat, dog]", "[cat]", "classes must hold at least 2 names, got 1"),
        ("dog", "no", "'classes.1' is wrong: .*got False; put quotes around it"),
        ("dog", "7", "'classes.1' is wrong: .*got 7; put quotes around it"),
        ("dog", "' '", "'classes.1' is wrong"),
        ("mean: [0, 0, 0]", "mean: [0, 0]", "mean must have 3 values, got 2"),
        (
            "std: [1, 1, 1]",
            "std: [1, 1, 1]\n  scale: 1/255",
            "preprocessing.scale' is wrong.*1/255",
        ),
        ("classes", "classes: [a, b]\nclasses", "key 'classes' occurs twice"),
        ("[cat, dog]", "[cat, dog", r"not valid YAML; line \d+, column \d+"),
    ],
)
def test_every_mistake_is_named(read, old, new, message):
    with pytest.raises(InputError, match=message) as caught:
        read(GOOD.replace(old, new))
    assert "net.yaml: " in str(caught.value)


def test_yaml_syntax_error_names_its_line(read):
    with pytest.raises(InputError, match="line 3, column"):
        read("classes: [a, b]\npreprocessing: {}\n\tbad: 1\n")


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n"])
def test_what_is_no_mapping_shows_an_example(read, text):
    with pytest.raises(InputError, match=r"must be a mapping(.|\n)*channel_order: rgb"):
        read(text)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="must be a readable YAML file"):
        ModelDescription.read(tmp_path / "absent.yaml")


def test_the_users_description_wins(about):
    given, found = about(), about(crop=4)
    assert resolve(given, model="net", found=found) is given
    assert resolve(None, model="net", found=found) is found
    assert resolve(given, model="net", split_at="pool").split_at == "pool"


def test_without_any_description_a_complete_file_is_shown():
    with pytest.raises(InputError, match="model must have a description, got none") as caught:
        resolve(None, model="net")
    assert EXAMPLE_YAML in str(caught.value)
