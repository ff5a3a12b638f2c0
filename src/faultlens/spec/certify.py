"""Certificates: what was decided and why, in a form that anyone can check again.

A certificate is one JSON file. The arrays that it speaks of stand beside it in safetensors files
named by the SHA-256 of their content: one for the readout, one a region, one a witness, each
written once however many certificates need it. The checker is `certificate`; it shares no code
with this package. The format is explained in `docs/guide/certificates.md`.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.errors import SolverError
from faultlens.files import json_value, save_arrays, write_atomic
from faultlens.spec.branch import refutes
from faultlens.spec.exact import Witness, shows
from faultlens.spec.formula import Comparison, Formula, all_of, negate
from faultlens.spec.proof import Leaf, Phase, Proof, Split
from faultlens.spec.region import Readout, Region, Shape

FORMAT = "faultlens-certificate-1"


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a certificate shows.

    Attributes:
        verdict: `PROVED`, `REFUTED` or `VACUOUS`.
        goal: What holds, or does not.
        given: Hypotheses.
        region: Where.
        readout: What the signals mean.
    """

    verdict: str
    goal: Formula
    given: Formula
    region: Region
    readout: Readout


def is_shown(claim: Claim, evidence: Proof | Witness) -> bool:
    """Return whether evidence shows a claim, in exact arithmetic.

    Args:
        claim: Verdict, formulas, region and readout.
        evidence: A proof where the verdict is `PROVED` or `VACUOUS`, else a witness.
    """
    if isinstance(evidence, Witness):
        return claim.verdict == "REFUTED" and shows(
            claim.goal, claim.given, claim.region, claim.readout, evidence
        )
    refuted = {"PROVED": all_of(claim.given, negate(claim.goal)), "VACUOUS": claim.given}
    if claim.verdict not in refuted:
        return False
    return refutes(evidence, refuted[claim.verdict], claim.region, claim.readout)


def certificate(
    folder: str | Path, claim: Claim, evidence: Proof | Witness, unchecked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a certificate as JSON values, and write the arrays that it names.

    Args:
        folder: Where the arrays are kept.
        claim: What is shown.
        evidence: Proof or witness.
        unchecked: What else readers should know, such as the specification's text; the checker
            does not look at it.

    Raises:
        SolverError: The evidence does not show the claim in exact arithmetic.
        StoreError: The folder cannot be written to.
    """
    if isinstance(evidence, Witness):  # the checker's numbers are multiples of 2**-149
        whole = np.rint(np.ldexp(evidence.point.astype(np.float64), 149))
        evidence = Witness(_narrow(np.ldexp(whole, -149)), evidence.body)
    if not is_shown(claim, evidence):
        raise SolverError(
            f"the evidence must show {claim.verdict} in exact arithmetic, but it does not; "
            "report the verdict as UNKNOWN (numerical)"
        )
    folder = Path(folder)
    n_signals = len(claim.readout.concept_rows) + len(claim.readout.head_biases[-1])
    if isinstance(evidence, Witness):
        own = [evidence.body, _store(folder, {"point": evidence.point})]
    else:
        own = _cases(evidence, claim)
    return {
        "format": FORMAT,
        "verdict": claim.verdict,
        "goal": _formula(claim.goal, n_signals),
        "given": _formula(claim.given, n_signals),
        "readout": _once(folder, claim.readout),
        "region": _once(folder, claim.region),
        "shapes": [str(body.shape) for body in claim.region.bodies],
        "evidence": own,
        "unchecked": json_value(dict(unchecked)),
    }


def write_certificate(
    folder: str | Path,
    name: str,
    claim: Claim,
    evidence: Proof | Witness,
    unchecked: Mapping[str, Any],
) -> Path:
    """Write a certificate and its arrays; every file is complete or absent.

    Args:
        folder: Made when absent.
        name: Of the specification; the file's name is made from it.
        claim: What is shown.
        evidence: Proof or witness.
        unchecked: What else readers should know.

    Returns:
        The JSON file.

    Raises:
        SolverError: The evidence does not show the claim in exact arithmetic.
        StoreError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from faultlens.spec import certificate as checker
        >>> from faultlens.spec.formula import TRUE
        >>> from faultlens.spec.region import Body
        >>> one, none = np.ones(1, np.float32), np.empty((0, 1), np.float32)
        >>> box = Body(Shape.BOX, 0 * one, None, one, 2 * one)
        >>> claim = Claim(
        ...     "PROVED", Comparison(((0, 1.0),)), TRUE,
        ...     Region("box", (box,), none, none[:, 0]),
        ...     Readout(one[None], 0 * one, (one[None],), (0 * one,)),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_certificate(folder, "big", claim, Leaf(((0, 1.0),)), {"text": "big"})
        ...     path.name, checker.check(path)
        ('big.json', 'PROVED')
    """
    document = certificate(folder, claim, evidence, {"name": name, **unchecked})
    plain = re.sub(r"[^\w.,=+\[\]-]", "_", name)[:80].lstrip(".")
    if plain != name:  # two names must not share a file
        plain = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    path = Path(folder, f"{plain}.json")
    items = (f"{json.dumps(key)}: {_compact(value)}" for key, value in document.items())
    write_atomic(path, ("{\n" + ",\n".join(items) + "\n}\n").encode())
    return path


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _hex(number: float) -> str:
    return (float(number) + 0.0).hex()  # no negative zero


def _formula(formula: Formula, n_signals: int) -> list[Any]:
    """Return a formula; the constant is the weight of one more signal, which is 1."""
    if not isinstance(formula, Comparison):
        return [int(formula.n), [_formula(part, n_signals) for part in formula.parts]]
    pairs = [[int(signal), _hex(weight)] for signal, weight in formula.terms]
    if formula.constant:
        pairs.append([n_signals, _hex(formula.constant)])
    return [bool(formula.is_strict), pairs]


def _cases(proof: Proof, claim: Claim) -> list[Any]:
    """Return a proof's cases, each before its parts.

    Every hidden unit's two phases are a choice there, before all others; the region's half-spaces
    are comparisons, after those of the hidden units.
    """
    hidden = [len(b) for b in claim.readout.head_biases[:-1]]
    n_units, n_halfspaces = sum(hidden), len(claim.region.weights)
    cases: list[Any] = []
    waiting = [proof]
    while waiting:
        match waiting.pop():
            case Split(place, then, other):
                cases.append([n_units + place])
                waiting += [other, then]
            case Phase(layer, unit, active, inactive):
                cases.append([sum(hidden[:layer]) + unit])
                waiting += [inactive, active]
            case Leaf(multipliers, halfspaces, body):
                pairs = [(p + n_halfspaces * (p >= 3 * n_units), w) for p, w in multipliers]
                pairs += [(p + 3 * n_units, w) for p, w in halfspaces]
                cases.append([int(body), [[int(p), _hex(w)] for p, w in sorted(pairs)]])
    return cases


def _once(folder: Path, thing: Readout | Region) -> str:
    """Return the hash of an array file, and write it where it is absent."""
    digest = _stored(folder, thing)
    if not (folder / f"{digest}.safetensors").exists():
        _stored.cache_clear()
        digest = _stored(folder, thing)
    return digest


@lru_cache(maxsize=64)
def _stored(folder: Path, thing: Readout | Region) -> str:
    arrays = _readout_arrays(thing) if isinstance(thing, Readout) else _region_arrays(thing)
    return _store(folder, arrays)


def _store(folder: Path, arrays: Mapping[str, FloatArray]) -> str:
    """Write arrays under the hash of their content, which is returned."""
    temporary = folder / f".{secrets.token_hex(8)}.safetensors"
    digest = save_arrays(temporary, {name: _narrow(array) for name, array in arrays.items()})
    temporary.replace(folder / f"{digest}.safetensors")
    return digest


def _narrow(array: FloatArray) -> FloatArray:
    """Return an array as float32 where that changes no number."""
    narrow = np.asarray(array).astype(np.float32)
    return narrow if np.array_equal(narrow, array) else np.asarray(array, np.float64)


def _region_arrays(region: Region) -> dict[str, FloatArray]:
    arrays = {"weights": region.weights, "offsets": region.offsets}
    for i, body in enumerate(region.bodies):
        arrays[f"centre_{i}"] = body.centre
        if body.basis is not None:
            arrays[f"basis_{i}"] = body.basis
        if body.lower is not None and body.upper is not None and body.shape is Shape.BOX:
            arrays |= {f"lower_{i}": body.lower, f"upper_{i}": body.upper}
        if body.shape is Shape.BALL:
            arrays[f"radius_{i}"] = np.array([body.radius])
    return arrays


def _readout_arrays(readout: Readout) -> dict[str, FloatArray]:
    """Return rows over the embedding and, after it, the outputs of hidden units.

    `rows` are the concepts', then the classes'; `unit_rows` those of the hidden units' inputs.
    """
    sizes = [weights.shape[1] for weights in readout.head_weights]
    starts = np.concatenate([[0], np.cumsum(sizes)])

    def pad(weights: FloatArray, start: int) -> FloatArray:
        return np.pad(weights, ((0, 0), (start, starts[-1] - start - weights.shape[1])))

    layers = [pad(w, start) for w, start in zip(readout.head_weights, starts[:-1], strict=True)]
    units = [np.empty((0, starts[-1]), np.float32), *layers[:-1]]
    return {
        "rows": np.concatenate([pad(readout.concept_rows, 0), layers[-1]]),
        "offsets": np.concatenate([readout.concept_offsets, readout.head_biases[-1]]),
        "unit_rows": np.concatenate(units),
        "unit_offsets": np.concatenate([np.empty(0, np.float32), *readout.head_biases[:-1]]),
    }
