"""SIGTERM at any moment: the job ends within two seconds with 143, its lease is free, and the next run is exact."""

import random
import signal
import time

import pytest
from nightly import Nights, assert_exact, processes_of, run, start, two_nights, wait_for

TIMES = 20
SEED = 7


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return two_nights(tmp_path_factory.mktemp("nights"), 192)


@pytest.mark.slow
def test_the_job_is_stopped_at_random_moments(nights: Nights) -> None:
    out = nights.out("undisturbed")
    begin = time.monotonic()
    ended = run("never", "driver", nights.command(out))
    whole_s = time.monotonic() - begin
    assert ended.returncode == 0, ended.stderr
    moments, stopped = random.Random(SEED), 0
    for number in range(TIMES):
        out = nights.out(f"stopped {number}")
        command = nights.command(out)
        wait_s = moments.uniform(1, whole_s)
        job = start("never", "driver", command)
        time.sleep(wait_s)
        job.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        _, errors = job.communicate(timeout=60)
        took_s = time.monotonic() - begin
        print(f"stopped after {wait_s:.1f} s of {whole_s:.1f}: status {job.returncode} within {took_s:.2f} s")
        if job.returncode == 0:  # it had ended before
            continue
        stopped += 1
        assert job.returncode in (143, -signal.SIGTERM) and took_s < 2, errors  # -15: before the job handles signals
        if job.returncode == 143:
            assert errors.splitlines()[-1].endswith("[exit status 143]"), errors
        assert not (out / "_lease.json").exists()
        resumed = run("never", "driver", command)
        assert resumed.returncode == 0, resumed.stderr
        assert_exact(nights, out)
        wait_for(lambda session=job.pid: not processes_of(session))  # an agent of Ray looks for its parent now and then
    assert stopped >= TIMES // 2
