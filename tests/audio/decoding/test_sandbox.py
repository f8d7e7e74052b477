"""A process in the sandbox cannot open files, use the network, start processes, or reach other processes."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, errno, os, signal, socket, subprocess, sys, threading
from mtl_core.audio.decoding.sandbox import enter_sandbox
descriptor = os.open(sys.argv[1], os.O_RDONLY)
enter_sandbox()
def attempt(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno]
    except RuntimeError as error:  # "can't start new thread"
        return "EPERM" if "thread" in str(error) else str(error)
    return "done"
print(attempt(ACTION))
"""
REFUSED = [
    "lambda: open('/etc/passwd')",
    "lambda: open(sys.argv[1] + '.new', 'w')",
    "lambda: os.listdir('/')",
    "lambda: os.unlink(sys.argv[1])",
    "lambda: os.rename(sys.argv[1], sys.argv[1] + '.new')",
    "lambda: os.mkdir(sys.argv[1] + '.new')",
    "lambda: os.chmod(sys.argv[1], 0o777)",
    "lambda: os.truncate(sys.argv[1], 0)",
    "lambda: open('/proc/self/environ')",
    "lambda: socket.socket()",
    "lambda: socket.create_connection(('127.0.0.1', 80))",
    "lambda: subprocess.run(['true'])",
    "lambda: os.fork()",
    "lambda: os.system('true') and os.execv('/bin/true', ['true'])",
    "lambda: os.kill(os.getppid(), 0)",
    "lambda: threading.Thread(target=print).start()",
]
ALLOWED = [
    "lambda: os.read(descriptor, 3)",
    "lambda: os.pread(descriptor, 3, 0)",
    "lambda: os.lseek(descriptor, 0, os.SEEK_SET)",
    "lambda: os.write(os.memfd_create('samples'), b'123')",
    "lambda: bytearray(1 << 24)",
]


def outcome(action: str, path) -> str:
    path.write_bytes(b"123")
    script = SCRIPT.replace("ACTION", action)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("action", REFUSED)
def test_what_a_decoder_does_not_need_is_refused(action, tmp_path):
    assert outcome(action, tmp_path / "file") == "EPERM"


@pytest.mark.parametrize("action", ALLOWED)
def test_what_a_decoder_needs_is_allowed(action, tmp_path):
    assert outcome(action, tmp_path / "file") == "done"


def test_a_thread_of_the_sandbox_can_still_end_itself(tmp_path):
    script = SCRIPT.replace("ACTION", "lambda: signal.raise_signal(signal.SIGABRT)")
    (tmp_path / "file").touch()
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")]).returncode == -6
