"""What `--plan-only` says a run will cost, beside what it costs: python bench/bench_forecast.py [FEW [N [FOLDER]]]

A first run tags FEW tracks (default 100). Then `--plan-only` foretells the CPU hours of N others (default 500), and a
second run tags them. The tracks are copies of the recordings of 120 s or more in FOLDER (default: the real songs beside
the checkout), else of generated songs; the model is `spread` of tagging_inputs.py.

Prints the forecast, the CPU seconds of the tracks as the run recorded them, and those of all its processes, with
start-up. Ends with status 1 where the forecast is more than a fifth away from the recorded ones.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from process_tree import adopt_orphans, run

ROOT = Path(__file__).parents[1]
SONGS = ROOT.parent / "shared" / "audio" / "songs"
MOST_AWAY = 0.2


def main(few: int = 100, n: int = 500, songs: Path = SONGS) -> None:
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        inputs = [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), folder, str(songs), str(few), str(n)]
        subprocess.run(inputs, check=True)

        def command(tracks: int, *flags: str) -> list[str]:
            job = [sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--model", f"{folder}/spread"]
            return [*job, "--out", f"{folder}/out", "--manifest", f"{folder}/tracks-{tracks}.parquet", *flags]

        run(command(few), PYTHONPATH=str(ROOT))
        told = subprocess.run(command(n, "--plan-only"), check=True, capture_output=True, text=True).stdout
        found = re.search(r"([\d.]+) CPU seconds a track", told)
        assert found is not None, told
        forecast_s = float(found[1]) * n
        spent = run(command(n), PYTHONPATH=str(ROOT))
        records = [json.loads(path.read_bytes()) for path in Path(folder, "out", "runs").glob("[!_]*.json")]
        newest = max(records, key=lambda record: record["run_id"])
    recorded_s = newest["cpu_s_per_track"] * newest["planned"]
    print(f"{n} tracks after {few}: forecast {forecast_s:.1f} CPU s, recorded {recorded_s:.1f}, "
          f"with start-up {spent.cpu_s:.1f}")  # fmt: skip
    print(f"forecast / recorded: {forecast_s / recorded_s:.3f}")
    if abs(forecast_s / recorded_s - 1) > MOST_AWAY:
        sys.exit(1)


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]), *(Path(value) for value in sys.argv[3:4]))
