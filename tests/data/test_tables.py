import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.data.tables import list_table
from faultlens.errors import InputError


@pytest.fixture
def table(tree):
    root = tree("a.png", "b c.png", "deep/d,e.png")

    def write(text, encoding="utf-8"):
        path = root / "images.csv"
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return list_table(str(path), str(root))

    return write


def test_columns(table):
    listing = table(
        "split,path,class,subclass,wheels,furry\n"
        "train,a.png,truck,,1,false\n"
        'test,"deep/d,e.png",cat,tabby, 0 ,TRUE\n'
        "test,./b c.png,cat,,-1,\n"
    )
    assert listing.names == ["a.png", "deep/d,e.png", "b c.png"]
    assert listing.classes == ["truck", "cat", "cat"]
    assert listing.splits == ["train", "test", "test"]
    assert listing.subclasses == ["", "tabby", ""]
    assert {k: v.tolist() for k, v in listing.attributes.items()} == {
        "wheels": [1, 0, -1],
        "furry": [0, 1, -1],
    }
    assert listing.attributes["wheels"].dtype == np.int8


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,class\na.png,cat\n", "utf-8-sig"),
        ("path,class\r\na.png,cat\r\n", "utf-8"),
        ('"path","class"\n"a.png","cat"', "utf-8"),
        ("path,class\n\na.png,cat\n\n", "utf-8"),
        ("path, class\na.png,cat\n", "utf-8"),
    ],
    ids=["byte-order mark", "CRLF", "quoted", "blank lines", "space in the header"],
)
def test_dialects(table, text, encoding):
    listing = table(text, encoding)
    assert (listing.names, listing.classes) == (["a.png"], ["cat"])
    assert listing.splits is listing.subclasses is None


def test_absolute_paths_become_relative(tree):
    root = tree("pictures/a.png", "elsewhere/b.png")
    path = root / "images.csv"
    path.write_text(f"path,class\n{root / 'pictures' / 'a.png'},x\n{root / 'elsewhere/b.png'},y\n")
    assert list_table(str(path), str(root / "pictures")).names == ["a.png", "../elsewhere/b.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a header and one row a picture, got 0 rows"),
        ("path,class\n", "got 1 rows"),
        ("file,class\na.png,cat\n", "must have a column 'path' .*got 'file', 'class'"),
        ("path,label\na.png,cat\n", "must have a column 'class' .*got 'path', 'label'"),
        ("path;class\na.png;cat\n", r"\(separated by commas\), got 'path;class'"),
        ("path,class,class\na.png,cat,cat\n", "names of their own, got 'class' repeated"),
        ("path,class,\na.png,cat,1\n", "names of their own, got '' repeated or blank"),
        ("path,class\na.png,cat,1\n", "must have 2 fields, got 3 in row 1"),
        ("path,class\na.png,cat\nb c.png\n", "must have 2 fields, got 1 in row 2"),
        ("path,class\na.png,cat\nb c.png,\n", "column 'class' .* got nothing in row 2"),
        ("path,class\n,cat\n", "column 'path' .* got nothing in row 1"),
        ("path,class,split\na.png,cat,\n", "column 'split' .* got nothing in row 1"),
        ("path,class\na.png,cat\n./a.png,dog\n", "named once, got 'a.png' more than once"),
        ("path,class\nzz.png,cat\n", "got 1 of 1 missing: 'zz.png'"),
        ("path,class\ndeep,cat\n", "got 1 of 1 missing: 'deep'"),
        ("path,class\ndeep\\a.png,cat\n", "with forward slashes"),
        ('path,class\n"a.png,cat\n', "must be a CSV file in UTF-8"),
        ("path,class\na.png,é\n".encode("latin-1"), "save it again as CSV UTF-8"),
        ("path,class\na.png,cat\n".encode("utf-16"), "save it again as CSV UTF-8"),
    ],
)
def test_mistakes(table, text, message):
    with pytest.raises(InputError, match=message):
        table(text)


def test_an_unknown_column_is_named_with_what_is_allowed(table):
    with pytest.raises(InputError) as error:
        table("path,class,spilt\na.png,cat,1\nb c.png,cat,train\n")
    assert str(error.value) == (
        "column 'spilt' must be one of path, class, split, subclass, or an attribute that holds "
        "only 0, 1, -1, true, false or nothing, got 'train' in row 2; rename or remove it "
        "(did you mean 'split'?)"
    )


def test_missing_files_are_counted_and_five_are_named(table):
    rows = "".join(f"no{i}.png,cat\n" for i in range(7))
    with pytest.raises(InputError) as error:
        table("path,class\na.png,cat\n" + rows)
    message = str(error.value)
    assert "got 7 of 8 missing: 'no0.png', 'no1.png'" in message
    assert "'no4.png' … (7 in all)" in message
    assert "no5" not in message


def test_missing_table(tree):
    root = tree("images.csv")
    with pytest.raises(InputError, match=r"must be a CSV file, got .*did you mean 'images.csv'"):
        list_table(str(root / "image.csv"), str(root))


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(rows=st.lists(st.tuples(text, st.sampled_from([1, 0, -1])), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("table")
    with open(root / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class", "odd"])
        for i, (name, value) in enumerate(rows):
            (root / f"{i}.png").touch()
            writer.writerow([f"{i}.png", name, value])
    listing = list_table(str(root / "t.csv"), str(root))
    assert listing.classes == [name for name, _ in rows]
    assert listing.attributes["odd"].tolist() == [value for _, value in rows]
