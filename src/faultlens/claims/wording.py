"""Numbers, names and concepts as a sentence says them."""

from faultlens.localize.responsible import ResponsibleConcept


def portion(x: float) -> str:
    """Render a fraction in a sentence: plain text, with one decimal where it is small.

    Example:
        >>> portion(0.974), portion(0.004), portion(1.0), portion(0.0002)
        ('97 %', '0.4 %', '100 %', 'under 0.1 %')
    """
    if 0 < x < 0.0005:
        return "under 0.1 %"
    return f"{100 * x:.{1 if 0 < x < 0.095 else 0}f} %"


def listing(names: list[str]) -> str:
    """Join names as people do.

    Example:
        >>> listing(["a", "b", "c"]), listing(["a"])
        ('a, b and c', 'a')
    """
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def confused(confusions: list[tuple[int, int, int]], classes: tuple[str, ...]) -> str:
    """Name the confusions (label, prediction, count) that cover most errors; empty without any.

    Example:
        >>> confused([(0, 1, 9), (1, 0, 1)], ("cat", "dog"))
        'mostly cat called dog'
    """
    if not confusions:
        return ""
    total = sum(n for _, _, n in confusions)
    shown, covered = [], 0
    for label, predicted, n in confusions[:3]:
        shown.append(f"{classes[label]} called {classes[predicted]}")
        covered += n
        if covered >= 0.8 * total:
            break
    return f"{'mostly' if covered >= 0.5 * total else 'such as'} {listing(shown)}"


def words(concepts: list[ResponsibleConcept], view: str = "model", n: int = 3) -> str:
    """Say which concepts a group of errors gains and loses; empty without any."""
    of_view = [c for c in concepts if c.view == view]
    gained = [c.concept for c in of_view if c.effect > 0][:n]
    lost = [c.concept for c in of_view if c.effect < 0][:n]
    said = []
    if gained:
        said.append(f"more {listing(gained)}")
    if lost:
        said.append(f"less {listing(lost)}")
    return " and ".join(said)
