"""HTML page: the frame of a report, one HTML file without links to others, readable on light and dark backgrounds.

The frame is `page.html`; the plots take their colours from its CSS variables.
"""

from collections.abc import Mapping
from html import escape
from importlib.resources import files


def page(title: str, body: str) -> str:
    """The whole page. `title` is plain text, `body` is HTML."""
    frame = files(__package__).joinpath("page.html").read_text("utf-8")
    return frame.replace("BODY", body, 1).replace("TITLE", escape(title), 1)  # in this order: a title may say BODY


def header(title: str, facts: Mapping[str, str]) -> str:
    """The head of a page: its title and facts about it, name and value."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<header><h1>{escape(title)}</h1><dl>{items}</dl></header>"
