"""A folder of tables is one place for every library, or its name is refused before any work."""

import pytest
from tables.nights import a_failure, a_tag, night, state

from mtl_core.errors import InputError
from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_table

KEPT = ["a b", "ünï 日本 😀", "a+b&c=d,e;f", "[x]{c}|<t>*", 'it\'s "q" co:lon', "100%", " ends ", "~t@b^`", "50%-off."]
REFUSED = ["pct%20out", "%2F", "tab\tname", "nl\nname", "del\x7f", "byte\udcff"]
REFUSED_ON_S3 = ["run#2", "a?b", "a//b"]


@pytest.mark.parametrize("name", KEPT)
def test_tables_lie_in_a_folder_of_this_name(root: str, name: str) -> None:
    out = Location(f"{root}/{name}")
    night(out, "1", [a_tag("x")], [a_failure("y")])
    night(out, "2", [a_tag("y", run="2")], [])
    assert state(out) == {"x": "tag r", "y": "tag 2"}
    files = {path.rpartition("/")[0] for path, _ in out.walk()}
    assert {"tags", "tags/_delta_log", "failures", "failures/_delta_log"} <= files
    assert all(path.startswith(name) for path, _ in Location(root).walk())


@pytest.mark.parametrize("name", [*REFUSED, *REFUSED_ON_S3, "back\\slash"])
def test_a_name_that_deltalake_reads_as_another_is_refused(root: str, name: str) -> None:
    out = Location(f"{root}/{name}")
    if name in (["back\\slash"] if out.on_s3 else REFUSED_ON_S3):
        assert open_table(out, "tags") is None
    else:
        with pytest.raises(InputError, match="cannot be in the name of a folder of tables"):
            open_table(out, "tags")
