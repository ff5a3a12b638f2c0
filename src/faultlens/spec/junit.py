"""JUnit XML, which every CI server reads: one test case a specification."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from faultlens.spec.suite import Case, Outcome

#: Characters that XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = {Outcome.FAILED: "failure", Outcome.ERROR: "error", Outcome.UNKNOWN: "skipped"}


def render(suites: Mapping[str, Sequence[Case]], when: datetime | None = None) -> str:
    """Return a JUnit document.

    A failed case carries the verdict as the type of its failure; an unknown one counts as skipped,
    which servers show apart from passes.

    Args:
        suites: The cases by the suite's name.
        when: Time of the run; now, if None.

    Example:
        >>> case = Case("wheels", "FAILS", Outcome.FAILED, "80 of 100 images", "a.png")
        >>> print(render({"trucks": [case]}).splitlines()[5].strip())
        <failure type="FAILS" message="80 of 100 images">a.png</failure>
    """
    # Of the schemas in use one allows totals here and the other does not.
    root = ET.Element("testsuites")
    stamp = (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    for i, (name, cases) in enumerate(suites.items()):
        about = {"id": str(i), "name": _clean(name), "package": "faultlens"}
        suite = ET.SubElement(
            root,
            "testsuite",
            about | _totals(cases) | {"timestamp": stamp, "hostname": "localhost"},
        )
        ET.SubElement(suite, "properties")
        for case in cases:
            _add(suite, name, case)
        ET.SubElement(suite, "system-out")
        ET.SubElement(suite, "system-err")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add(suite: ET.Element, suite_name: str, case: Case) -> None:
    element = ET.SubElement(
        suite, "testcase",
        {
            "name": _clean(case.name),
            "classname": _clean(suite_name),
            "time": f"{case.seconds:.3f}",
        },
    )  # fmt: skip
    if case.outcome is Outcome.PASSED:
        return
    tag = _TAGS[case.outcome]
    about = {} if tag == "skipped" else {"type": case.verdict}
    result = ET.SubElement(element, tag, about | {"message": _clean(case.message)})
    if tag != "skipped":
        result.text = _clean(case.detail)


def _totals(cases: Sequence[Case]) -> dict[str, str]:
    count = {o: sum(c.outcome is o for c in cases) for o in Outcome}
    return {
        "tests": str(len(cases)),
        "failures": str(count[Outcome.FAILED]),
        "errors": str(count[Outcome.ERROR]),
        "skipped": str(count[Outcome.UNKNOWN]),
        "time": f"{sum(c.seconds for c in cases):.3f}",
    }


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
