"""Tables for TensorBoard's Text tab."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table. Cells may hold any text; what Markdown or HTML would read as markup is escaped."""
    lines = [_row(header), _row(["---"] * len(header)), *(_row([escape(cell) for cell in row]) for row in rows)]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, on one line."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_|[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
