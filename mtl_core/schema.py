"""Schemas of the tables on disk: MANIFEST, MELS, TAGS, FAILURES. Nothing else describes a table.

Times are in seconds, sizes in bytes, timestamps in UTC.
"""

import pyarrow as pa

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
#: A reader of a manifest needs these alone.
MANIFEST_REQUIRED = ("track_id", "uri")

MEL_SHAPE = (187, 96)  # (frames, bands), equal to that of audio.mel
MELS = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("segment", pa.int32(), nullable=False),  # counts from 0 over the whole track
        pa.field("start_s", pa.float64(), nullable=False),  # from the recording's start
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
        ("n_segments", pa.int32()),
        ("artist", pa.string()),  # null = unknown
        ("artist_confidence", pa.float32()),  # calibrated probability of the first of artist_top
        ("artist_top", _TOP),  # best first, min(5, classes)
        ("language", pa.string()),
        ("language_confidence", pa.float32()),
        ("language_top", _TOP),
        ("embedding", pa.list_(pa.float32())),  # 96 values, mean over the segments
        ("model_id", pa.string()),
        ("run_id", pa.string()),
        ("tagged_at", pa.timestamp("us", tz="UTC")),
    ]
)

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
    ]
)
