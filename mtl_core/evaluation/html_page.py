"""HTML page: the frame of a report, one HTML file without links to others, readable on light and dark backgrounds.

The plots take their colours from the CSS variables here.
"""

from collections.abc import Mapping
from html import escape


def page(title: str, body: str) -> str:
    """The whole page. `title` is plain text, `body` is HTML."""
    return _PAGE.replace("TITLE", escape(title), 1).replace("BODY", body, 1)


def header(title: str, facts: Mapping[str, str]) -> str:
    """The head of a page: its title and facts about it, name and value."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<header><h1>{escape(title)}</h1><dl>{items}</dl></header>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title><style>
:root { color-scheme: light dark; --paper: #fbfbf9; --panel: #ffffff; --ink: #1d2126; --muted: #646b73; --grid: #dcdfe2;
  --artist: #2f6fb5; --language: #b8651b; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --panel: #1c2024; --ink: #e6e8ea; --muted: #9aa2aa;
  --grid: #363c42; --artist: #6aa9ec; --language: #e59a54; --wrong: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.9rem; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 0 0 .9rem; }
section { margin-top: 3rem; padding-top: 1.6rem; border-top: 1px solid var(--grid); }
dl { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0; }
dl div { display: flex; gap: .45rem; min-width: 0; } dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem; margin-top: 1.8rem; }
.card { background: var(--panel); border: 1px solid var(--grid); border-radius: 8px; padding: 1rem 1.1rem; }
.name { color: var(--muted); } .name::first-letter { text-transform: uppercase; }
.value { font-size: 2.1rem; font-weight: 650; line-height: 1.25; letter-spacing: -.02em; }
.note, figcaption { color: var(--muted); font-size: .86rem; } .note { max-width: 60rem; }
.artist { --task: var(--artist); } .language { --task: var(--language); }
.scale { position: relative; height: 4px; margin: .55rem 0 .7rem; background: var(--grid); border-radius: 2px; }
.scale i { position: absolute; top: 0; height: 4px; }
.scale .interval { background: var(--task); opacity: .55; min-width: 2px; }
.scale .chance { width: 2px; margin-left: -1px; height: 12px; top: -4px; background: var(--ink); }
.scale .dot { width: 12px; height: 12px; top: -4px; margin-left: -6px; border-radius: 50%; background: var(--task); }
.scroll, figure.wide { overflow-x: auto; width: max-content; max-width: calc(50vw + 50%); } .scroll { min-width: 100%; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--grid);
  vertical-align: baseline; }
thead th { color: var(--muted); font-weight: 500; font-size: .86rem; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
.scores td, .scores thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.scores { font-size: .92rem; }
.scores span { color: var(--muted); }
.tracks { font-size: .88rem; } .tracks td:first-child { overflow-wrap: anywhere; min-width: 12rem; }
.tracks i { color: var(--muted); }
.wrong { color: var(--wrong); font-weight: 600; }
.confidence { min-width: 5rem; } .confidence i { display: block; height: 2px; background: var(--muted); }
.pair { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; margin-top: 1.6rem; }
.pair figure { flex: 1 1 22rem; min-width: 0; }
h3 { font-size: 1rem; margin: 0; } :is(.scroll, figure, .note) + h3 { margin-top: 2rem; }
.pair > div { flex: 1 1 22rem; min-width: 0; }
.mel img { width: 100%; height: 96px; display: block; border-radius: 4px; } .mel b { color: var(--ink); }
.mel figcaption { overflow-wrap: anywhere; } .mel ul { margin: 0; padding-left: 1.1rem; }
figure { margin: 1.2rem 0 0; } figure svg { max-width: 100%; height: auto; display: block; }
figure.wide svg { max-width: none; } figure.wide figcaption { position: sticky; left: 0; }
figcaption { margin-top: .5rem; max-width: 40rem; }
svg text { font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
@media print { body { max-width: none; } section, .card { break-inside: avoid; } }
</style></head><body>
BODY
</body></html>
"""
