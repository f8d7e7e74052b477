"""Schemas of the tables on disk: MANIFEST, MELS, TAGS, FAILURES. No other module defines a table's columns.

Times are in seconds, sizes in bytes, timestamps in UTC. TAGS and FAILURES can gain nullable columns: add the field at
the end, with `metadata={SINCE: "VERSION"}`. Tables that exist gain the column with the next run.
"""

import pyarrow as pa

#: Key of a field's metadata: the version of mtl_core that added the column. The columns of version 0.1 have none.
SINCE = b"since"

MANIFEST = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),  # unique; by default the path relative to the catalogue
        pa.field("uri", pa.string(), nullable=False),  # an absolute path or s3://bucket/key
        ("content_id", pa.string()),  # changes when the bytes change
        ("size_bytes", pa.int64()),
        ("artist", pa.string()),
        ("language", pa.string()),
        ("album", pa.string()),
    ]
)
#: The columns that a manifest must have.
MANIFEST_REQUIRED = ("track_id", "uri")

MEL_SHAPE = (187, 96)  # (frames, bands) of one segment
MELS = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("segment", pa.int32(), nullable=False),  # from 0, over the whole track
        pa.field("start_s", pa.float64(), nullable=False),  # from the start of the recording
        ("artist", pa.string()),
        ("language", pa.string()),
        ("album", pa.string()),
        pa.field("mel", pa.fixed_shape_tensor(pa.float16(), MEL_SHAPE), nullable=False),
    ]
)
#: Keys of the Parquet metadata of MELS: the front end's parameters as canonical JSON, their hash, and the weights of
#: the filter bank as an .npz file (mels of version 0.1 have none).
FRONT_END, FRONT_END_HASH, FILTER_BANK = b"front_end", b"front_end_hash", b"filter_bank"

_TOP = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))

TAGS = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("content_id", pa.string()),
        ("duration_s", pa.float32()),
        ("n_segments", pa.int32()),  # that were read
        ("artist", pa.string()),  # null = unknown
        ("artist_confidence", pa.float32()),  # calibrated probability of the first entry of artist_top
        ("artist_top", _TOP),  # best first, min(5, classes)
        ("language", pa.string()),
        ("language_confidence", pa.float32()),
        ("language_top", _TOP),
        ("embedding", pa.list_(pa.float32())),  # 96 values, mean over the segments with sound
        ("model_id", pa.string()),
        ("run_id", pa.string()),
        ("tagged_at", pa.timestamp("us", tz="UTC")),
        # damage in what was decoded: seconds that were passed over
        pa.field("lost_s", pa.float32(), metadata={SINCE: "0.2"}),
        # the higher, the more certainly is the artist known; below the model's threshold `artist` is null
        pa.field("artist_score", pa.float32(), metadata={SINCE: "0.2"}),
        pa.field("language_score", pa.float32(), metadata={SINCE: "0.2"}),
        pa.field("n_voted", pa.int32(), metadata={SINCE: "0.2"}),  # of the segments, those with sound
        # of what made the embedding: a model with the same one can tag the row again without its audio
        pa.field("trunk_id", pa.string(), metadata={SINCE: "0.2"}),
    ]
)

#: What fold models say of the tracks that were kept from them; `known` says whether the model knows the track's artist.
OUT_OF_FOLD = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("known", pa.bool_(), nullable=False),
        ("n_segments", pa.int32()),  # with sound
        ("artist", pa.string()),  # the true label
        ("artist_true_probability", pa.float32()),  # of `artist`; null if the fold model does not know it
        ("artist_tag", pa.string()),  # null = unknown
        ("artist_score", pa.float32()),
        ("artist_top", _TOP),
        ("language", pa.string()),
        ("language_true_probability", pa.float32()),
        ("language_tag", pa.string()),
        ("language_score", pa.float32()),
        ("language_top", _TOP),
        ("embedding", pa.list_(pa.float32())),
    ]
)

#: Tracks that the tables must not hold again.
FORGOTTEN = pa.schema(
    [
        pa.field("track_hash", pa.binary(32), nullable=False),  # SHA-256 of the salt and the track_id
        pa.field("forgotten_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
#: Key of the Parquet metadata of FORGOTTEN: the salt, 64 hexadecimal digits.
SALT = b"salt"

FAILURES = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("content_id", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("permanent", pa.bool_()),
        ("model_id", pa.string()),
        ("run_id", pa.string()),
        ("failed_at", pa.timestamp("us", tz="UTC")),
        # of the run in which the track failed first, with this content and model
        pa.field("first_run_id", pa.string(), metadata={SINCE: "0.2"}),
    ]
)
