"""How long each declared program trains here: the planned steps, up to a cap.

Most programs plan far more steps than they need to show what becomes of them. The caps keep
enough for the fixed versions to train; plain PyTorch gets more than Keras, whose steps cost ten
times as much.
"""

from trainings.declared import Declaration, Program

DEFAULT = {"torch": 2000, "keras": 500}
#: (program, version) -> steps; `None` as a version is both.
CAPS: dict[str, dict[tuple[int, str | None], int]] = {
    "torch": {
        (1, "fixed"): 4000, (3, "fixed"): 10000, (6, None): 3000, (12, "buggy"): 3000,
        (34, None): 24, (33, None): 960,
    },
    "keras": {(1, "fixed"): 1500, (3, "fixed"): 4000, (6, None): 1000, (34, None): 24},
}  # fmt: skip
#: Steps a repaired program gets.
REPAIRED = {"torch": 3000, "keras": 1500}


def cap(program: Program, version: str, framework: str) -> int:
    own = CAPS[framework]
    default = own.get((program.number, None), DEFAULT[framework])
    return own.get((program.number, version), default)


def repaired_cap(declaration: Declaration, framework: str) -> int:
    """Steps of a repaired version; half as many for pictures."""
    is_image = any(layer["type"] == "Conv2D" for layer in declaration["layers"])
    return REPAIRED[framework] // (2 if is_image else 1)
