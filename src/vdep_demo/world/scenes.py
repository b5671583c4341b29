"""The pictures of the demo world: what is in a scene, and how it is drawn.

A scene is a 48 x 48 px picture with one to four things on a 3 x 3 grid: coloured shapes of two sizes and real handwritten
digits (scikit-learn's ``load_digits``), on a plain, a noisy or a blurred background. A *diagram* is a scene in which a line
joins each shape to the digit that labels it. Every scene knows its boxes and masks.

Train and test never share a scene: the description of a scene is hashed, and the hash decides the split. The handwritten
digits are divided in the same way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CELL = 16
GRID = 3
IMAGE_SIZE = CELL * GRID

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 90, 230),
    "yellow": (235, 220, 50),
    "purple": (170, 60, 200),
    "orange": (245, 145, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 8, "large": 14}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
BACKGROUNDS = ("plain", "noisy", "blurred")

TEST_SHARE = 0.25


@dataclass(frozen=True)
class Thing:
    """One shape or one digit. ``row`` and ``column`` count from the top left; ``digit_index`` is a row of ``load_digits``."""

    kind: str
    color: str
    size: str
    row: int
    column: int
    digit: int | None = None
    digit_index: int | None = None
    offset: tuple[int, int] = (0, 0)

    @property
    def place(self) -> str:
        return f"{ROWS[self.row]} {COLUMNS[self.column]}"

    @property
    def name(self) -> str:
        """Colour and kind, such as ``red circle``, or ``digit 7``: no two things of a scene share it."""
        return f"digit {self.digit}" if self.kind == "digit" else f"{self.color} {self.kind}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels, right and bottom exclusive."""
        side = 14 if self.kind == "digit" else SIZES[self.size]
        left = self.column * CELL + (CELL - side) // 2 + self.offset[0]
        top = self.row * CELL + (CELL - side) // 2 + self.offset[1]
        return left, top, left + side, top + side


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: str
    shade: int
    noise_seed: int
    diagram: bool = False

    @property
    def signature(self) -> str:
        """What the scene shows, without jitter, shade, noise and the handwriting."""
        return (
            ";".join(sorted(f"{t.kind},{t.color},{t.size},{t.row},{t.column},{t.digit}" for t in self.things))
            + f";{self.diagram}"
        )

    @property
    def split(self) -> str:
        digest = hashlib.sha256(self.signature.encode()).digest()
        return "test" if int.from_bytes(digest[:4], "big") / 2**32 < TEST_SHARE else "train"

    @property
    def shapes(self) -> tuple[Thing, ...]:
        return tuple(t for t in self.things if t.kind != "digit")

    @property
    def digits(self) -> tuple[Thing, ...]:
        return tuple(t for t in self.things if t.kind == "digit")


@cache
def handwritten_digits() -> tuple[np.ndarray, np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """Images (1797, 8, 8) as uint8 0..255, labels (1797,), and the row numbers of each (split, digit)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.clip(data.images * (255 / 16), 0, 255).astype(np.uint8)
    labels = data.target.astype(int)
    rows: dict[tuple[str, int], np.ndarray] = {}
    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        is_test = np.arange(len(of_digit)) % 4 == 3
        rows["train", digit] = of_digit[~is_test]
        rows["test", digit] = of_digit[is_test]
    return images, labels, rows


def _offset(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(-1, 2)), int(rng.integers(-1, 2))


def _digit(rng: np.random.Generator, split: str, row: int, column: int) -> Thing:
    digit = int(rng.integers(10))
    index = int(rng.choice(handwritten_digits()[2][split, digit]))
    return Thing("digit", "white", "large", row, column, digit, index, _offset(rng))


def _shapes(rng: np.random.Generator, cells: list[tuple[int, int]]) -> list[Thing]:
    """Shapes of which no two have the same colour and kind, so that ``the red circle`` names one thing."""
    pairs = [(c, s) for c in COLORS for s in SHAPES]
    chosen = rng.choice(len(pairs), size=len(cells), replace=False)
    sizes = list(SIZES)
    return [
        Thing(pairs[p][1], pairs[p][0], sizes[int(rng.integers(2))], row, column, offset=_offset(rng))
        for p, (row, column) in zip(chosen, cells, strict=True)
    ]


def _draw_scene(rng: np.random.Generator, split: str, digit_share: float, diagram_share: float) -> Scene:
    shade, noise_seed = int(rng.integers(20, 80)), int(rng.integers(2**31))
    background = BACKGROUNDS[int(rng.choice(3, p=[0.7, 0.2, 0.1]))]
    if rng.random() < diagram_share:
        rows = sorted(rng.choice(GRID, size=2, replace=False).tolist())
        things = _shapes(rng, [(row, 0) for row in rows])
        labels: list[Thing] = []
        while len({label.digit for label in labels}) < 2:
            labels = [_digit(rng, split, row, 2) for row in rows]
        return Scene(tuple(things + labels), "plain", shade, noise_seed, diagram=True)
    count = int(rng.integers(1, 5))
    cells = [divmod(int(c), GRID) for c in rng.choice(GRID * GRID, size=count, replace=False)]
    with_digit = rng.random() < digit_share
    things = _shapes(rng, cells[:-1] if with_digit else cells)
    if with_digit:
        things.append(_digit(rng, split, *cells[-1]))
    things.sort(key=lambda t: (t.row, t.column))
    return Scene(tuple(things), background, shade, noise_seed)


def sample_scenes(count: int, split: str, seed: int, digit_share: float = 0.6, diagram_share: float = 0.1) -> list[Scene]:
    """``count`` scenes of one split, a pure function of the arguments."""
    rng = np.random.default_rng([seed, {"train": 0, "test": 1}[split]])
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = _draw_scene(rng, split, digit_share, diagram_share)
        if scene.split == split:
            scenes.append(scene)
    return scenes


def crowded_scenes(count: int, split: str, seed: int) -> list[Scene]:
    """Scenes of three to five things, for texts alone: with more things there is more to look up."""
    rng = np.random.default_rng([seed, 7, {"train": 0, "test": 1}[split]])
    scenes: list[Scene] = []
    while len(scenes) < count:
        things = int(rng.integers(3, 6))
        cells = [divmod(int(c), GRID) for c in rng.choice(GRID * GRID, size=things, replace=False)]
        drawn = [*_shapes(rng, cells[:-1]), _digit(rng, split, *cells[-1])]
        drawn.sort(key=lambda t: (t.row, t.column))
        scene = Scene(tuple(drawn), "plain", 40, 0)
        if scene.split == split:
            scenes.append(scene)
    return scenes


def _draw_shape(draw: ImageDraw.ImageDraw, thing: Thing, fill: int | tuple[int, int, int]) -> None:
    left, top, right, bottom = thing.box
    right, bottom = right - 1, bottom - 1
    middle = (left + right) / 2
    if thing.kind == "circle":
        draw.ellipse((left, top, right, bottom), fill=fill)
    elif thing.kind == "square":
        draw.rectangle((left, top, right, bottom), fill=fill)
    elif thing.kind == "triangle":
        draw.polygon(((middle, top), (right, bottom), (left, bottom)), fill=fill)
    else:
        arm = (right - left) // 3
        draw.rectangle((left + arm, top, right - arm, bottom), fill=fill)
        draw.rectangle((left, top + arm, right, bottom - arm), fill=fill)


def thing_mask(thing: Thing) -> np.ndarray:
    """Where the thing is drawn: bool (height, width)."""
    canvas = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE), 0)
    if thing.kind == "digit":
        ink = _digit_ink(thing)
        canvas.paste(ink.point(lambda v: 255 * (v > 64)), thing.box[:2])
    else:
        _draw_shape(ImageDraw.Draw(canvas), thing, 255)
    return np.asarray(canvas) > 0


def _digit_ink(thing: Thing) -> Image.Image:
    left, top, right, bottom = thing.box
    image = Image.fromarray(handwritten_digits()[0][thing.digit_index])
    return image.resize((right - left, bottom - top), Image.Resampling.BICUBIC)


def render(scene: Scene) -> Image.Image:
    """The picture of a scene, RGB, ``IMAGE_SIZE`` square."""
    base = (scene.shade,) * 3
    canvas = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), base)
    draw = ImageDraw.Draw(canvas)
    if scene.diagram:
        for shape, label in zip(scene.shapes, scene.digits, strict=True):
            y = shape.row * CELL + CELL // 2
            draw.line((shape.box[2] + 1, y, label.box[0] - 2, y), fill=(200, 200, 200), width=1)
    for thing in scene.things:
        if thing.kind == "digit":
            ink = _digit_ink(thing)
            canvas.paste(Image.new("RGB", ink.size, (245, 245, 245)), thing.box[:2], ink)
        else:
            _draw_shape(draw, thing, COLORS[thing.color])
    if scene.background == "noisy":
        noise = np.random.default_rng(scene.noise_seed).normal(0, 18, (IMAGE_SIZE, IMAGE_SIZE, 3))
        canvas = Image.fromarray(np.clip(np.asarray(canvas) + noise, 0, 255).astype(np.uint8))
    elif scene.background == "blurred":
        canvas = canvas.filter(ImageFilter.GaussianBlur(0.8))
    return canvas
