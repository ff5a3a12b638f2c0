import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultlens.data.classes import in_order, match
from faultlens.errors import InputError


def test_numbers_sort_by_value_and_case_is_secondary():
    assert in_order(["1" * 9000, "2" + "0" * 9000, "007", "7"])[:2] == ("007", "7")
    names = ["b10", "b9", "B1", "10", "9", "a", "a"]
    assert in_order(names) == ("9", "10", "a", "B1", "b9", "b10")


@given(st.lists(st.text(max_size=6)))
def test_order_does_not_depend_on_the_order_given(names):
    assert in_order(names) == in_order(names[::-1])
    assert set(in_order(names)) == set(names)


def test_match_gives_the_models_positions():
    assert match(["dog", "cat"], ["emu", "cat", "dog"]) == {"dog": 2, "cat": 1}


@pytest.mark.parametrize("wrong", ["CAR WASH", "car_wash", "car-wash", "Carwash", " car wash"])
def test_spelling_is_not_merged_but_suggested(wrong):
    with pytest.raises(InputError, match=f"'{wrong}': did you mean 'car wash'?"):
        match([wrong], ["car wash", "wash", "bird"])


def test_each_unknown_class_has_its_line():
    with pytest.raises(InputError) as error:
        match(["dgo", "cat", "emu"], ["cat", "dog"])
    assert str(error.value).splitlines() == [
        "classes of the images must be the model's, got 2 unknown:",
        "  'dgo': did you mean 'dog'?",
        "  'emu': known: 'cat', 'dog'",
        "rename the folders, or the values of the column 'class'",
    ]


def test_many_unknown_classes_are_cut_short():
    with pytest.raises(InputError, match=r"got 30 unknown:(.|\n)*… and 20 more"):
        match([f"n{i:08}" for i in range(30)], ["cat"])


def test_a_name_that_the_model_has_twice():
    assert match(["cat"], ["crane", "cat", "crane"]) == {"cat": 1}
    with pytest.raises(InputError, match="must differ, got 'crane' more than once"):
        match(["crane"], ["crane", "cat", "crane"])
