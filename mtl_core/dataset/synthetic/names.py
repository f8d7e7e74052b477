"""Names of languages, artists, albums and songs. They are distinct and independent of the sound."""

import itertools

import numpy as np

_GIVEN = """
    Ada Alma Anouk Arlo Aurel Bela Bruno Cleo Dario Edda Elio Emil Fenna Flora Gaia Hugo Ida Ilse Ivo Jona Juno Kaya
    Lars Lena Levi Lino Lola Luna Malo Mara Milo Mina Nadia Nilo Noa Nora Odin Orla Otto Pia Remy Rosa Runa Selma
    Silas Tala Theo Tilda Una Vera Vito Wanda Yara Zeno Zoe
""".split()
_FAMILY = """
    Ambrose Arden Aspen Bellamy Birch Bloom Calder Castel Corvin Dalton Delmar Ember Everly Falco Fontana Garnet
    Glenn Hale Hartley Holm Isola Jarvis Keller Lark Lindo Linden Marlow Mercer Montane Nash Nightly North Oakes
    Olsen Palmer Penn Rane Ravel Reed Rivers Sable Solano Sorrel Stone Tamsin Thorne Vale Verdi Wilder Winter
""".split()
_ADJECTIVES = """
    Amber Blue Bright Broken Calm Clear Cold Copper Crystal Dark Distant Early Empty Endless Faded Falling Foreign
    Gentle Golden Green Hidden Hollow Honest Late Little Lonely Long Lost Lucky Midnight New Open Pale Paper Quiet
    Red Restless Second Secret Silent Silver Slow Soft Southern Still Sudden Tender Velvet White Wild
""".split()
_NOUNS = """
    Arrow Bell Bird Bridge Candle Circle City Cloud Coast Dancer Daylight Door Dream Echo Engine Feather Field Fire
    Flower Garden Glass Harbour Heart Hill Horizon House Island Lantern Letter Light Meadow Mirror Moon Morning
    Mountain Ocean Orchard Rain River Road Sail Shadow Shore Sky Snow Song Spring Star Stranger Street Summer Sun
    Tide Tower Train Valley Voice Water Wave Wind Window Wing
""".split()
_PLACES = (
    "",
    "at Dawn",
    "at Dusk",
    "in May",
    "in the Rain",
    "over the Sea",
    "of the North",
    "for Two",
    "Again",
    "for Nobody",
)


def _draw(names: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` distinct names in random order; when all are used they are repeated with a number."""
    rounds = ([*names] if n == 1 else [f"{name} {n}" for name in names] for n in itertools.count(1))
    drawn: list[str] = []
    while len(drawn) < count:
        pool = next(rounds)
        drawn += [pool[i] for i in rng.permutation(len(pool))[: count - len(drawn)]]
    return drawn


def language_codes(count: int, rng: np.random.Generator) -> list[str]:
    """Codes from qaa to qtz, which ISO 639-2 reserves for local use; at most 520."""
    return _draw([f"q{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrstuvwxyz"], count, rng)


def artist_names(count: int, rng: np.random.Generator) -> list[str]:
    """A given name and a family name for each artist."""
    return _draw([f"{given} {family}" for given in _GIVEN for family in _FAMILY], count, rng)


def works(count: int, rng: np.random.Generator) -> list[str]:
    """Titles of songs and albums."""
    phrases = [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    return _draw([f"{phrase} {place}".strip() for place in _PLACES for phrase in phrases], count, rng)


def slug(name: str) -> str:
    """A name in lower case with hyphens, for use in a path."""
    return name.lower().replace(" ", "-")
