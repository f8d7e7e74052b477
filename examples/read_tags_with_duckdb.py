"""Query the tags that tag_catalogue wrote with DuckDB: python examples/read_tags_with_duckdb.py OUT"""

import sys

import duckdb
from deltalake import DeltaTable

tags = DeltaTable(f"{sys.argv[1]}/tags").to_pyarrow_dataset()
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
