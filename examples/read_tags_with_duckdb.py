"""Query the tags that tag_catalogue wrote with DuckDB: python examples/read_tags_with_duckdb.py OUT"""

import sys

import duckdb

from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_dataset, open_delta

at = Location(f"{sys.argv[1]}/tags")
tags = open_dataset(at, open_delta(at))
print(
    duckdb.sql(
        """
        SELECT artist, language, count(*) AS tracks, avg(artist_confidence) AS confidence
        FROM tags
        GROUP BY artist, language
        ORDER BY tracks DESC, artist
        """
    )
)
