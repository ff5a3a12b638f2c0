"""The attacks by name."""

from collections.abc import Mapping
from types import MappingProxyType

from faultlens.models.attacks.apgd import APGD
from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.carlini_wagner import CarliniWagner
from faultlens.models.attacks.deepfool import DeepFool
from faultlens.models.attacks.fgsm import FGSM
from faultlens.models.attacks.patch import Patch
from faultlens.models.attacks.pgd import BIM, PGD, PGDL2
from faultlens.models.attacks.spatial import Spatial
from faultlens.models.attacks.square import Square

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType(
    {
        "apgd": APGD,
        "bim": BIM,
        "cw-l2": CarliniWagner,
        "deepfool": DeepFool,
        "fgsm": FGSM,
        "patch": Patch,
        "pgd": PGD,
        "pgd-l2": PGDL2,
        "spatial": Spatial,
        "square": Square,
    }
)
"""Every attack; a new one is one file and one line here, and the contract tests cover it."""
