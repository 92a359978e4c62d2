"""Text in pictures: a font with more than ASCII, and line breaking by width."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=8)
def font_of(height: int) -> Font:
    """Returns matplotlib's DejaVu Sans; Pillow's own font has only ASCII.

    Args:
        height: of a line, in pixels.
    """
    matplotlib = find_spec("matplotlib")
    for folder in (matplotlib and matplotlib.submodule_search_locations) or []:
        file = Path(folder) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), height)
    return ImageFont.load_default(height)


def drawable(text: str, font: Font) -> str:
    r"""Replaces letters that the font lacks by their code point: \u4e2d can be looked up, an empty square cannot."""
    return "".join(letter if _known(letter, font) else letter.encode("unicode_escape").decode() for letter in text)


def broken_lines(text: str, font: Font, width: int) -> list[str]:
    """Breaks the text into lines of at most `width` pixels, at least one line; longer words are cut."""
    lines: list[str] = []
    for word in drawable(text, font).split() or [""]:
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while len(word) > 1 and font.getlength(word) > width:
            fits = next((n for n in range(len(word) - 1, 0, -1) if font.getlength(word[:n]) <= width), 1)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines


@lru_cache(maxsize=4096)
def _known(letter: str, font: Font) -> bool:
    return letter.isascii() or _drawn(letter, font) != _drawn("\uffff", font)


def _drawn(letter: str, font: Font) -> bytes:
    image = Image.new("1", (64, 64))
    ImageDraw.Draw(image).text((0, 0), letter, fill=1, font=font)
    return image.tobytes()
