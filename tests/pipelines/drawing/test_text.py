import pytest

from pipelines.drawing.text import broken_lines, drawable, font_of

FONT = font_of(12)


@pytest.mark.parametrize(
    "text", ["a short one", "a much longer sentence with many words in it", "unbrokenwordoflength" * 3]
)
def test_lines_fit_and_lose_no_letter(text: str) -> None:
    lines = broken_lines(text, FONT, 100)
    assert all(FONT.getlength(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_nothing_to_say_is_one_empty_line() -> None:
    assert broken_lines("  ", FONT, 100) == [""]


def test_letters_the_font_lacks_are_written_as_numbers() -> None:
    assert drawable("café 中", FONT) == "café \\u4e2d"
