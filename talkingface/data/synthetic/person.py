"""Who a rendered person is. The same seed gives the same person on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from talkingface.data.synthetic.head import macro_weights, shape_names

Colour = tuple[int, int, int]  # sRGB, 0 to 255
KINDS = {
    "woman": ("long", "bob", "bun", "curly", "pixie", "afro", "scarf", "long"),
    "man": ("short", "side", "buzz", "back", "afro", "curly", "bald", "short"),
}
HAIR_COLOURS: tuple[Colour, ...] = (
    (24, 20, 18), (40, 28, 22), (62, 42, 28), (92, 62, 38), (124, 88, 54), (168, 128, 82),
    (110, 52, 28),
)  # fmt: skip
# Outer and inner colour of the iris.
EYE_COLOURS: tuple[tuple[Colour, Colour], ...] = (
    ((64, 44, 28), (86, 56, 32)), ((84, 58, 34), (108, 74, 40)), ((104, 84, 50), (122, 86, 48)),
    ((92, 106, 70), (122, 104, 60)), ((96, 126, 150), (138, 122, 84)),
    ((104, 118, 124), (116, 110, 88)),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (118, 60, 68), (194, 200, 210), (208, 158, 64), (70, 74, 84), (84, 100, 140), (50, 66, 72),
    (150, 74, 66), (58, 96, 78), (178, 160, 140), (92, 72, 110), (36, 40, 52), (160, 176, 186),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """One person.

    Args:
        seed: of everything that the other fields leave open.
        age: in years, 18 to 80.
        skin: tone, 0 light to 1 dark.
        hair: a style of ``hair.py``, ``bald`` or ``scarf``, and its colour.
        eyes: outer and inner colour of the iris.
        clothes: collar, see ``clothes.py``, and its colour.
        voice: pitch 0 to 1 from low to high, and speed in words per minute.
    """

    seed: int
    age: int
    sex: Literal["woman", "man"]
    skin: float
    hair: tuple[str, Colour]
    eyes: tuple[Colour, Colour]
    clothes: tuple[str, Colour]
    voice: tuple[float, int]
    ancestry: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)

    @classmethod
    def draw(cls, seed: int) -> Person:
        """A random adult."""
        rng = np.random.default_rng([1, seed])
        sex = ("woman", "man")[int(rng.integers(2))]
        age = int(18 + 62 * rng.random() ** 1.6)
        shares = rng.dirichlet((0.45, 0.45, 0.45))
        african, asian, european = (float(round(s, 3)) for s in shares)
        skin = african * 0.8 + asian * 0.3 + european * 0.15 + rng.normal(0, 0.08)
        dark = african + asian > 0.6
        style = str(rng.choice(KINDS[sex]))
        if style == "afro" and african < 0.4:
            style = "short" if sex == "man" else "curly"
        colour = HAIR_COLOURS[int(rng.integers(2 if dark else len(HAIR_COLOURS)))]
        grey = float(np.clip((age - 45) / 25 + rng.normal(0, 0.2), 0, 1)) if age > 40 else 0.0
        colour = tuple(
            round(c + (g - c) * grey * 0.85) for c, g in zip(colour, (176, 172, 168), strict=True)
        )
        eyes = EYE_COLOURS[int(rng.integers(2 if dark else len(EYE_COLOURS)))]
        collars = (
            ("crew", "vee", "scoop", "turtle")
            if sex == "woman"
            else ("crew", "shirt", "vee", "shirt")
        )
        clothes = CLOTHES[int(rng.integers(len(CLOTHES)))]
        return cls(
            seed=seed, age=age, sex=sex, skin=float(np.clip(skin, 0.05, 0.95).round(3)),
            hair=(style, colour), eyes=eyes, clothes=(str(rng.choice(collars)), clothes),
            voice=(round(float(rng.random()), 3), int(rng.integers(145, 186))),
            ancestry=(african, asian, european),
        )  # fmt: skip

    def shapes(self) -> dict[str, float]:
        """Weights of the head's shapes."""
        rng = np.random.default_rng([2, self.seed])
        weights = macro_weights(
            sex=float(np.clip((self.sex == "man") + rng.normal(0, 0.12), 0, 1)),
            age=float(np.clip(0.5 + (self.age - 25) / 130, 0.5, 1)),
            ancestry=tuple(a / sum(self.ancestry) for a in self.ancestry),
            muscle=float(rng.uniform(0.35, 0.65)),
            weight=float(rng.uniform(0.35, 0.75)),
        )
        for low, high, spread in _opposites():
            amount = rng.normal(0, spread)
            name = high if amount > 0 else low
            weights[name] = min(abs(amount), 0.7)
            if "/l-" in name:  # faces are almost symmetric
                other = amount + rng.normal(0, 0.15 * spread)
                weights[name.replace("/l-", "/r-")] = float(np.clip(abs(other), 0, 0.8))
        form = str(rng.choice(FORMS))
        weights[f"head/head-{form}"] = float(rng.uniform(0.2, 0.6))
        weights["mouth/mouth-angles-up"] = 0.35 + weights.get("mouth/mouth-angles-up", 0)
        return weights


FORMS = ("oval", "round", "rectangular", "square", "triangular", "invertedtriangular", "diamond")
ENDINGS = ("decr incr", "down up", "concave convex", "in out", "compress uncompress")


def _opposites() -> list[tuple[str, str, float]]:
    """Opposite detail shapes, and how much people differ in them; of two sides the left one."""
    names, found = set(shape_names()), []
    for name in sorted(names):
        for low, high in map(str.split, ENDINGS):
            other = name[: -len(low)] + high
            if name.endswith(f"-{low}") and other in names and "/r-" not in name:
                found.append((name, other, 0.18 if "-trans-" in name else 0.28))
    return found
