"""Text tables: the tables of an experiment as text for a terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Rows of cells. The first row names the columns, the first cell of the others names the row.
Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Notes and tables under a heading; "" is no heading."""

    heading: str = ""
    notes: Sequence[str] = ()  # a paragraph each
    tables: Sequence[tuple[str, Rows]] = ()  # (title, rows) of each table; "" is no title


def to_text(title: str, sections: Sequence[Section]) -> str:
    """Sections for a terminal."""
    paragraphs = [title]
    for section in sections:
        paragraphs += [section.heading] if section.heading else []
        paragraphs += section.notes
        for table_title, rows in section.tables:
            widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
            lines = [table_title] if table_title else []
            for row in rows:
                lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Sections as a Markdown document."""
    paragraphs = [f"# {title}"]
    for section in sections:
        paragraphs += [f"## {section.heading}"] if section.heading else []
        paragraphs += section.notes
        for table_title, rows in section.tables:
            paragraphs += [f"**{table_title}**"] if table_title else []
            lines = [f"| {' | '.join(row)} |" for row in rows]
            lines.insert(1, f"| --- |{' ---: |' * (len(rows[0]) - 1)}")
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def group_title(group: Mapping[str, Any]) -> str:
    """The title of the table of a group: recipe, epochs, alpha, folds and seeds."""
    folds, seeds = group["folds"], group["seeds"]
    parts = [f"{group['name']}: {group['epochs']} epochs" if group["epochs"] else f"{group['name']}: no network"]
    if group.get("alpha") is not None:
        parts.append(f"alpha {group['alpha']:g}")
    if len(folds) > 1:
        parts.append(f"{len(folds)} folds pooled")
    elif folds and folds != [0]:
        parts.append(f"fold {folds[0]}")
    parts.append(f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}")
    return ", ".join(parts)


def left_out_notes(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note for each group with runs that are not in its table."""
    return [
        f"left out of {group['name']} until its seed is complete: {', '.join(group['left_out'])}"
        for group in groups
        if group["left_out"]
    ]
