"""The words of ConceptWorld: classes, attributes, nuisances, and how often a class shows what.

Classes and attributes are those of the data set RIVAL10 (Moayeri et al., A Comprehensive Study
of Image Classification Model Sensitivity to Foregrounds, Backgrounds, and Visual Attributes, CVPR
2022, arXiv:2201.10766); the pictures and frequencies are our own.
"""

CLASSES = (
    "truck", "car", "plane", "ship", "cat", "dog", "equine", "deer", "frog", "bird",
)  # fmt: skip
ATTRIBUTES = (
    "long-snout", "wings", "wheels", "text", "horns", "floppy-ears", "ears", "colored-eyes",
    "tail", "mane", "beak", "hairy", "metallic", "rectangular", "wet", "long", "tall", "patterned",
)  # fmt: skip
BACKGROUNDS = ("sky", "road", "grass", "water", "snow", "room")
LIGHTS = ("neutral", "dark", "bright", "warm", "cold")
OCCLUDERS = ("pole", "leaves")

#: Body colours, RGB.
COLORS = {
    "red": (200, 48, 44),
    "orange": (236, 132, 36),
    "yellow": (240, 206, 62),
    "green": (70, 150, 66),
    "blue": (52, 98, 190),
    "purple": (132, 74, 168),
    "brown": (128, 84, 50),
    "black": (44, 44, 50),
    "white": (240, 238, 232),
    "gray": (138, 140, 146),
}

#: How often a picture of a class shows an attribute; an attribute that is not listed, never.
FREQUENCIES: dict[str, dict[str, float]] = {
    "truck": {
        "wheels": 0.9, "text": 0.5, "metallic": 0.45, "rectangular": 0.6, "wet": 0.2,
        "long": 0.4, "tall": 0.4, "patterned": 0.25,
    },
    "car": {
        "wheels": 0.9, "text": 0.3, "metallic": 0.5, "rectangular": 0.35, "wet": 0.2,
        "long": 0.35, "tall": 0.2, "patterned": 0.3,
    },
    "plane": {
        "wings": 0.85, "wheels": 0.5, "text": 0.5, "tail": 0.8, "metallic": 0.5, "wet": 0.15,
        "long": 0.4, "patterned": 0.25,
    },
    "ship": {
        "text": 0.4, "metallic": 0.4, "rectangular": 0.4, "wet": 0.35, "long": 0.4, "tall": 0.4,
        "patterned": 0.25,
    },
    "cat": {
        "ears": 0.85, "tail": 0.75, "colored-eyes": 0.5, "hairy": 0.5, "wet": 0.15, "long": 0.25,
        "patterned": 0.45,
    },
    "dog": {
        "long-snout": 0.5, "ears": 0.9, "floppy-ears": 0.45, "tail": 0.75, "colored-eyes": 0.3,
        "hairy": 0.5, "wet": 0.25, "long": 0.3, "tall": 0.25, "patterned": 0.35,
    },
    "equine": {
        "long-snout": 0.8, "ears": 0.8, "tail": 0.8, "mane": 0.65, "colored-eyes": 0.2,
        "hairy": 0.3, "wet": 0.15, "tall": 0.35, "patterned": 0.35,
    },
    "deer": {
        "long-snout": 0.75, "horns": 0.55, "ears": 0.8, "tail": 0.65, "colored-eyes": 0.25,
        "hairy": 0.3, "wet": 0.15, "tall": 0.4, "patterned": 0.4,
    },
    "frog": {
        "colored-eyes": 0.6, "wet": 0.5, "long": 0.3, "patterned": 0.45,
    },
    "bird": {
        "wings": 0.6, "beak": 0.9, "tail": 0.7, "colored-eyes": 0.4, "hairy": 0.2, "wet": 0.15,
        "long": 0.25, "tall": 0.35, "patterned": 0.35,
    },
}  # fmt: skip
