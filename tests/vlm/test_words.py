"""The word tokenizer: exact on what it knows, clear about what it does not."""

import json

import numpy as np
import pytest

from faultlens.concepts import CLASS_TEMPLATES, TEMPLATES
from faultlens.data.world.captions import vocabulary_words
from faultlens.errors import InputError, StoreError
from faultlens.vlm.words import WordTokenizer


@pytest.fixture
def tokenizer():
    return WordTokenizer(["a", "long", "snout", "wheels", "wings", "beak", "floppy"], length=4)


def test_texts_become_rows_of_word_numbers(tokenizer):
    tokens = tokenizer(["a beak", "wheels"])
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [[1, 6, 0, 0], [4, 0, 0, 0]]


@pytest.mark.parametrize("text", ["long snout", "Long-Snout", " long_snout!", "LONG, (snout)."])
def test_case_and_marks_do_not_matter(tokenizer, text):
    assert tokenizer([text]).tolist() == [[2, 3, 0, 0]]


def test_a_full_row_has_no_padding(tokenizer):
    assert tokenizer(["a long floppy beak"]).tolist() == [[1, 2, 7, 6]]


def test_a_mistyped_word_gets_a_suggestion(tokenizer):
    with pytest.raises(InputError) as caught:
        tokenizer(["wings", "a weels"])
    assert str(caught.value) == (
        "text must use the 7 words that the model knows, got 'weels' in 'a weels'; "
        "did you mean 'wheels'?"
    )


def test_a_foreign_word_gets_the_nearest_few_not_the_first_of_the_alphabet():
    tokenizer = WordTokenizer(vocabulary_words(), length=34)
    with pytest.raises(InputError) as caught:
        tokenizer(["a photo of a giraffe"])
    message = str(caught.value)
    assert "got 'giraffe' in 'a photo of a giraffe'; known: " in message
    assert message.count("'") == 4 + 2 * 5
    assert "'gray'" in message


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", ""], "text must have a word, got ''"),
        ([" -- "], "text must have a word, got ' -- '"),
        ([], r"texts must be a list of at least one text, got \[\]"),
        ("wheels", "texts must be a list of at least one text, got 'wheels'"),
        (["a a a a a"], "text must have at most 4 words, got 5 in 'a a a a a'; shorten it"),
    ],
)
def test_texts_that_cannot_be_encoded_are_explained(tokenizer, texts, message):
    with pytest.raises(InputError, match=message):
        tokenizer(texts)


@pytest.mark.parametrize(
    ("words", "length", "message"),
    [
        (["Beak"], 4, "words must be single words in lower case, got 'Beak'"),
        (["long snout"], 4, "single words in lower case, got 'long snout'"),
        ([""], 4, "single words in lower case, got ''"),
        (["a", "a"], 4, "words must be at least one and all different, got 2 with 1 repeated"),
        ([], 4, "words must be at least one"),
        (["a"], 0, "length must be at least 1, got 0"),
    ],
)
def test_a_wrong_vocabulary_is_refused(words, length, message):
    with pytest.raises(InputError, match=message):
        WordTokenizer(words, length)


def test_a_written_vocabulary_reads_the_same(tokenizer, tmp_path):
    first = tokenizer.write(tmp_path / "words.json")
    read = WordTokenizer.read(tmp_path / "words.json")
    assert (read.words, read.length) == (tokenizer.words, 4)
    assert read.write(tmp_path / "again.json") == first
    assert set(json.loads((tmp_path / "words.json").read_text())) == {"words", "length"}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", StoreError, "must be an undamaged JSON file"),
        ('{"words": "abc", "length": 3}', InputError, "must hold a list 'words'"),
        ('{"words": [1], "length": 3}', InputError, "must hold a list 'words'"),
        ('{"words": ["a"]}', InputError, "must hold a list 'words'"),
        ("[]", InputError, "must hold a list 'words'"),
    ],
)
def test_a_damaged_file_is_explained(tmp_path, text, error, message):
    (tmp_path / "words.json").write_text(text)
    with pytest.raises(error, match=message):
        WordTokenizer.read(tmp_path / "words.json")


def test_every_prompt_of_the_templates_can_be_encoded():
    tokenizer = WordTokenizer(vocabulary_words(), length=34)
    texts = [t.format("long-snout") for t in TEMPLATES]
    texts += [t.format("airplane") for t in CLASS_TEMPLATES]
    assert (tokenizer(texts)[:, 0] > 0).all()
