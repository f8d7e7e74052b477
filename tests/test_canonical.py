"""Hashes of version 0.1 stay what they are, whatever Python's defaults become."""

from mtl_core.canonical import canonical_json, canonical_sha256, run_sha256

VALUE = {"b": [1, 0.5, None], "a": "\u6b4c"}


def test_canonical_json_is_sorted_compact_and_not_escaped() -> None:
    assert canonical_json(VALUE) == '{"a":"\u6b4c","b":[1,0.5,null]}'


def test_hashes_stay_the_same() -> None:
    assert canonical_sha256(VALUE) == "eb7b67525552bbbcb963bc2c350148ad98eb9e76e233ca4ee9c39f0bf2774d79"
    assert run_sha256(VALUE) == "2ffecdd189953f8ea121608a3225476f69bc462c3b137577d0dedf98586836df"
