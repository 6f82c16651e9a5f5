"""The few pieces of Markdown that the generated pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTICE = "<!-- Written by `make docs`: change the code that it describes, not this page. -->"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_row(columns), _row(["---"] * len(columns)), *map(_row, rows)]


def code(text: object) -> str:
    """Text in a fixed-width font."""
    return f"`{text}`"


def one_line(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())


def page(*blocks: str | Iterable[str]) -> str:
    """The blocks of a page, separated by empty lines; a block is text or the lines of it."""
    parts = [block if isinstance(block, str) else "\n".join(block) for block in blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
