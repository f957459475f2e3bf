"""Every tag that the fifteen categories may write, in full, with its meaning."""

from logging_system.categories import CATEGORIES
from logging_system.category import Tag

TAG_TABLE: dict[str, Tag] = {
    f"{category.name}/{key}": meaning for category in CATEGORIES for key, meaning in category.tags.items()
}


def tags_of(name: str) -> dict[str, Tag]:
    """Return the tags of one category, in full."""
    return {tag: meaning for tag, meaning in TAG_TABLE.items() if tag.startswith(f"{name}/")}
