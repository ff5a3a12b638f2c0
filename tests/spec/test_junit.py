from datetime import datetime
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from faultlens.spec.junit import render
from faultlens.spec.suite import Case, Outcome

WHEN = datetime(2030, 1, 2, 3, 4, 5)

CASES = [
    Case("good", "HOLDS", Outcome.PASSED, "fine"),
    Case("bad", "FAILS", Outcome.FAILED, "80 of 100", "a.png\nb.png", 0.25),
    Case("open", "UNKNOWN", Outcome.UNKNOWN, "too few images"),
    Case("broken", "ERROR", Outcome.ERROR, "not finite"),
]

# Attributes and children that the schemas of Ant and of Jenkins both know, in their order.
SUITE = {
    "id", "name", "package", "tests", "failures", "errors", "skipped", "time", "timestamp",
    "hostname",
}  # fmt: skip


def check_shape(text):
    root = ET.fromstring(text)
    assert (root.tag, root.attrib) == ("testsuites", {})
    for suite in root:
        assert suite.tag == "testsuite"
        assert set(suite.attrib) == SUITE
        datetime.fromisoformat(suite.get("timestamp"))
        tags = [child.tag for child in suite]
        n = tags.count("testcase")
        assert tags == ["properties", *["testcase"] * n, "system-out", "system-err"]
        assert int(suite.get("tests")) == n
        for tag, key in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(key)) == len(suite.findall(f"testcase/{tag}"))
        for case in suite.findall("testcase"):
            assert set(case.attrib) == {"name", "classname", "time"}
            assert float(case.get("time")) >= 0
            assert len(case) <= 1
            for result in case:
                known = {"message"} if result.tag == "skipped" else {"type", "message"}
                assert set(result.attrib) == known
    return root


def test_every_case_is_one_and_failures_say_why():
    root = check_shape(render({"trucks": CASES, "none": []}, WHEN))
    suite = root[0]
    assert suite.get("timestamp") == "2030-01-02T03:04:05"
    assert suite.get("time") == "0.250"
    good, bad, unknown, broken = suite.findall("testcase")
    assert len(good) == 0
    failure = bad.find("failure")
    assert (failure.get("type"), failure.get("message")) == ("FAILS", "80 of 100")
    assert failure.text == "a.png\nb.png"
    assert unknown.find("skipped").get("message") == "too few images"
    assert broken.find("error").get("type") == "ERROR"


@given(st.text(), st.text(), st.text())
def test_any_name_gives_a_document_that_can_be_read(name, message, detail):
    text = render({name: [Case(name, "FAILS", Outcome.FAILED, message, detail)]}, WHEN)
    root = check_shape(text.encode("utf-8", "surrogatepass").decode("utf-8"))
    assert len(root.findall("testsuite/testcase")) == 1
