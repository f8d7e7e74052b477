"""The GPU program runs whole on a CPU, in small, and needs none of the packages that Ray's machines have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_NEEDED = "ray pyarrow fsspec s3fs deltalake duckdb openvino librosa sklearn tyro tensorboardX".split()


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_with_few_packages(tmp_path):
    for package in NOT_NEEDED:
        (tmp_path / "blocked" / package).mkdir(parents=True)
        (tmp_path / "blocked" / package / "__init__.py").write_text(f"raise ImportError('{package} is not needed')\n")
    command = [sys.executable, str(ROOT / "bench" / "on_gpu.py"), "--device", "cpu", "--scale", "0.01"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'blocked'}:{ROOT}"}
    process = subprocess.run(
        [*command, "--out", str(tmp_path)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "on_gpu.json").read_text())
    assert len(results["training"]) == 8
    assert len(results["engine"]) == 2
    assert len(results["fed"]) == 4
    assert results["ddp"][0]["workers"] == 2
    assert all(row["passed"] for part in ("training", "ddp", "engine", "fed") for row in results[part])
    assert all(row["segments_per_s"] > 0 for part in ("training", "ddp", "engine", "fed") for row in results[part])
    assert "| best | 8 | bfloat16, compiled |" in (tmp_path / "on_gpu.md").read_text()
