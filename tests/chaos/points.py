"""The functions at which the chaos tests kill, pause or delay a job, each named once.

A function is `module:name` or `module:Class.method`, as the module that calls it sees it. When one is renamed or moved,
change its line here; `test_points.py` fails until it is changed. killed_job.py explains how a point is written.
"""

PLAN_TRACKS = "mtl_core.tables.planning:plan_tracks"
VERIFY_AND_MERGE = "mtl_core.tables.commit:verify_and_merge"
COMMIT = "mtl_core.tables.commit:commit_run"
REWRITE_WITHOUT = "mtl_core.tables.commit:rewrite_without"
COMMIT_ACTIONS = "mtl_core.tables.commit:commit_actions"
COMMIT_PROPERTIES = "mtl_core.tables.delta:CommitProperties"
WRITE_DATA_FILE = "mtl_core.tables.data_files:write_file"
WRITE_PLAN = "mtl_core.storage.work_plan:write_plan"
DELETE_PLAN = "mtl_core.storage.work_plan:delete_plan"
WRITE_BYTES = "mtl_core.storage.location:Location.write_bytes"
READ_BYTES = "mtl_core.storage.location:Location.read_bytes"
DELETE_FILE = "mtl_core.storage.location:Location.delete"
WATCH_PROGRESS = "mtl_core.pipelines.workers.progress:Progress.watch"
COUNT_PROGRESS = "mtl_core.pipelines.workers.progress:Progress.add"
END_BEGUN_COMMITS = "mtl_core.pipelines.night.run_end:end_begun_commits"
FIND_ROWS = "mtl_core.tables.takedown:rows_of"
FIND_OTHER_ROWS = "mtl_core.tables.takedown:rows_of_others"
ADD_FORGOTTEN = "mtl_core.tables.forgotten:add"
REWRITE_REMAINDERS = "mtl_core.tables.takedown:rewrite_remainders"
COMMIT_REMOVAL = "mtl_core.tables.takedown:commit_actions"
PURGE_TABLE = "mtl_core.tables.purge:purge_table"
COMMIT_NOTHING = "mtl_core.tables.purge:commit_nothing"
WRITE_CHECKPOINT = "deltalake:DeltaTable.create_checkpoint"
WRITE_LOG_ENTRY = "deltalake:DeltaTable.create_write_transaction"
RENAME_FILE = "pathlib:Path.replace"
UNLINK_FILE = "os:unlink"
READ_CLOCK = "time:monotonic"

#: Start of the process name of an actor that tags.
TAGGING_ACTOR = "ray::MapWorker(MapBatches(ReadAndTagShard))"

NEXT_SHARD_DONE = f"{COUNT_PROGRESS}:exit:1"
SECOND_SHARD_DONE = f"{COUNT_PROGRESS}:exit:2"
FAILURES_COMMITTED = f"{COMMIT}:enter>{WRITE_LOG_ENTRY}:exit"
TAGS_REWRITTEN = f"{REWRITE_WITHOUT}@tags-kept:exit"

#: phase -> its points. Each comes after the one before, so that one run after another can be killed at each.
PHASES: dict[str, list[str]] = {
    "planning": [
        f"{PLAN_TRACKS}:enter",
        f"{PLAN_TRACKS}:exit",
        f"{WRITE_BYTES}@/plan-0:enter",
        f"{WRITE_PLAN}:enter>{RENAME_FILE}@plan-0:enter",  # the draft is written, but not yet renamed
        f"{WRITE_BYTES}@/plan-0:exit",
        f"{WRITE_BYTES}@/plan.json:enter",
        f"{WRITE_BYTES}@/plan.json:exit",
    ],
    "running": [
        f"{WATCH_PROGRESS}:enter",
        NEXT_SHARD_DONE,
        f"{NEXT_SHARD_DONE}>{READ_CLOCK}:700",  # 0.7 s later, between the ends of two shards
    ],
    "verifying": [
        f"{VERIFY_AND_MERGE}:enter",
        f"{READ_BYTES}@/tags-0:exit:3",
        f"{VERIFY_AND_MERGE}:enter>{WRITE_DATA_FILE}:enter",
        f"{VERIFY_AND_MERGE}:enter>{WRITE_DATA_FILE}:2",
        f"{VERIFY_AND_MERGE}:enter>{WRITE_DATA_FILE}:exit",
        f"{VERIFY_AND_MERGE}:exit",
    ],
    "committing failures": [
        f"{COMMIT}:enter",
        f"{COMMIT}:enter>{REWRITE_WITHOUT}:enter",
        f"{COMMIT}:enter>{REWRITE_WITHOUT}:exit",
        f"{COMMIT}:enter>{WRITE_DATA_FILE}:exit",
        f"{COMMIT}:enter>{WRITE_LOG_ENTRY}:enter",
    ],
    "between the commits": [
        FAILURES_COMMITTED,
        f"{REWRITE_WITHOUT}@tags-kept:enter",
        f"{REWRITE_WITHOUT}@tags-kept:enter>{WRITE_DATA_FILE}:enter",
        f"{REWRITE_WITHOUT}@tags-kept:enter>{WRITE_DATA_FILE}:1",
        f"{REWRITE_WITHOUT}@tags-kept:enter>{WRITE_DATA_FILE}:exit",
    ],
    "committing tags": [
        TAGS_REWRITTEN,
        f"{TAGS_REWRITTEN}>{COMMIT_ACTIONS}:enter",
        f"{TAGS_REWRITTEN}>{COMMIT_PROPERTIES}:enter",
        f"{TAGS_REWRITTEN}>{WRITE_LOG_ENTRY}:enter",
        f"{TAGS_REWRITTEN}>{WRITE_LOG_ENTRY}:exit",
    ],
    "after the commits": [
        f"{REWRITE_WITHOUT}@cleared-kept:enter",
        f"{REWRITE_WITHOUT}@cleared-kept:exit>{WRITE_LOG_ENTRY}:enter",
        f"{REWRITE_WITHOUT}@cleared-kept:exit>{WRITE_LOG_ENTRY}:exit",
        f"{WRITE_BYTES}@/runs/:enter",
        f"{WRITE_BYTES}@/runs/:exit",
        f"{DELETE_PLAN}:enter",
        f"{DELETE_PLAN}:enter>{UNLINK_FILE}@done-:enter:4",
        f"{DELETE_PLAN}:exit",
        f"{DELETE_FILE}@_lease:enter",
    ],
}

#: phase -> its points, of `maintain_tables --purge-now`, in order as above.
FORGETTING = [
    f"{FIND_ROWS}:exit",
    f"{ADD_FORGOTTEN}:enter",
    f"{RENAME_FILE}@forgotten.parquet:enter",  # the draft is written, but not yet renamed
    f"{ADD_FORGOTTEN}:exit",
]
PRUNING = [f"{FIND_OTHER_ROWS}:exit"]
REMOVING = [
    point
    for table in ("/failures", "/tags")
    for point in (
        f"{REWRITE_REMAINDERS}@{table}:enter",
        f"{REWRITE_REMAINDERS}@{table}:enter>{WRITE_DATA_FILE}:enter",
        f"{REWRITE_REMAINDERS}@{table}:exit",
        f"{REWRITE_REMAINDERS}@{table}:exit>{WRITE_LOG_ENTRY}:enter",
        f"{REWRITE_REMAINDERS}@{table}:exit>{WRITE_LOG_ENTRY}:1",
        f"{REWRITE_REMAINDERS}@{table}:exit>{COMMIT_REMOVAL}:exit",
    )
]
PURGING = [
    f"{DELETE_FILE}@/runs/:enter",
    f"{DELETE_FILE}@/runs/:exit",
    f"{DELETE_PLAN}:enter",
    f"{DELETE_PLAN}:enter>{UNLINK_FILE}@done-:enter",
    f"{DELETE_PLAN}:exit",
    *(
        point
        for table in ("/failures", "/tags")
        for point in (
            f"{PURGE_TABLE}@{table[1:]}:enter>{COMMIT_NOTHING}:enter",
            f"{PURGE_TABLE}@{table[1:]}:enter>{WRITE_CHECKPOINT}:enter",
            f"{PURGE_TABLE}@{table[1:]}:enter>{WRITE_CHECKPOINT}:0.5",
            f"{PURGE_TABLE}@{table[1:]}:enter>{DELETE_FILE}@{table}/_delta_log/:enter",
            f"{DELETE_FILE}@{table}/_delta_log/:exit:2",
            f"{DELETE_FILE}@{table}/part-:enter",
            f"{DELETE_FILE}@{table}/part-:exit",
        )
    ),
    f"{DELETE_FILE}@_lease:enter",
]
