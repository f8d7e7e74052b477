"""A process in the sandbox cannot open files, use the network, start processes, or reach other processes."""

import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_core.audio.decoding import sandbox

SCRIPT = """
import ctypes, errno, fcntl, os, platform, resource, signal, socket, subprocess, sys, threading
from mtl_core.audio.decoding.sandbox import _AUDIT_ARCHITECTURES, _REFUSED, _allowed_arguments, enter_sandbox
libc = ctypes.CDLL(None, use_errno=True)
column = _AUDIT_ARCHITECTURES[platform.machine()][1]
numbers = _REFUSED | {name: numbers for name, (numbers, _) in _allowed_arguments().items()}
def call(name, *arguments):
    number = name if isinstance(name, int) else numbers[name][column]
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
limits = (ctypes.c_uint64 * 2)(*resource.getrlimit(resource.RLIMIT_NOFILE))
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
    "lambda: call('tgkill', os.getppid(), os.getppid(), 0)",
    "lambda: call('rt_sigqueueinfo', os.getppid(), 0, ctypes.create_string_buffer(128))",
    "lambda: call('msgget', 0, 0o1600)",
    "lambda: call('prlimit64', os.getppid(), resource.RLIMIT_NOFILE, None, limits)",
    "lambda: call('prlimit64', 0, resource.RLIMIT_NOFILE, limits, None)",
    "lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))",
    "lambda: fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getppid())",
    "lambda: fcntl.flock(descriptor, fcntl.LOCK_EX)",
    "lambda: fcntl.ioctl(descriptor, 0x40086602, bytes(8))",  # FS_IOC_SETFLAGS
    "lambda: os.fchmod(descriptor, 0o777)",
    "lambda: os.fchown(descriptor, os.getuid(), os.getgid())",
    "lambda: os.utime(sys.argv[1])",
    "lambda: os.utime(descriptor)",
    "lambda: os.setxattr(descriptor, 'user.a', b'')",
    "lambda: os.removexattr(descriptor, 'user.a')",
    "lambda: os.removexattr(sys.argv[1], 'user.a')",
]
ALLOWED = [
    "lambda: os.read(descriptor, 3)",
    "lambda: os.pread(descriptor, 3, 0)",
    "lambda: os.lseek(descriptor, 0, os.SEEK_SET)",
    "lambda: os.write(os.memfd_create('samples'), b'123')",
    "lambda: bytearray(1 << 24)",
    "lambda: os.isatty(descriptor)",
    "lambda: os.fstat(descriptor)",
    "lambda: os.dup(descriptor)",
    "lambda: resource.getrlimit(resource.RLIMIT_STACK)",
    "lambda: call('tgkill', os.getpid(), threading.get_native_id(), 0)",
    "lambda: fcntl.fcntl(os.memfd_create('a', os.MFD_ALLOW_SEALING), fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)",
]
PASS, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000


def outcome(action: str, path) -> str:
    path.write_bytes(b"123")
    script = SCRIPT.replace("ACTION", action)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("action", REFUSED)
def test_what_a_decoder_does_not_need_is_refused(action, tmp_path):
    assert outcome(action, tmp_path / "file") == "EPERM"


def test_all_calls_of_the_list_are_refused(tmp_path):
    action = "lambda: [name for name in _REFUSED if numbers[name][column] >= 0 and not refuses(name)] and 1 / 0"
    refuses = "def refuses(name):\n try: call(name, 0, 0, 0, 0)\n except PermissionError: return True\n"
    (tmp_path / "file").touch()
    script = SCRIPT.replace("print(attempt", f"{refuses}\nprint(attempt").replace("ACTION", action)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], capture_output=True, text=True)
    assert done.stdout == "done\n", done


@pytest.mark.parametrize("number", [424, 430, 435, 452, 100_000, 0x40000000, 0x40000000 | 257])
def test_calls_later_than_the_list_are_unknown(number, tmp_path):
    """pidfd_send_signal, fsopen, clone3, fchmodat2; calls of the future; and x32's read and openat."""
    assert outcome(f"lambda: call({number}, 0, 0, 0, 0, 0)", tmp_path / "file") == "ENOSYS"


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter of a machine returns for a system call: it is run as the kernel runs it."""
    architecture = architecture or sandbox._AUDIT_ARCHITECTURES[machine][0]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program, at, word = list(struct.iter_unpack("HBBI", sandbox._filter(machine))), 0, 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        if code == sandbox._RETURN:
            return constant
        if code == sandbox._LOAD:
            word = struct.unpack_from("<I", data, constant)[0]
        else:
            is_true = word == constant if code == sandbox._EQUAL else word >= constant
            at += if_true if is_true else if_false


@pytest.mark.parametrize(
    "machine, openat, read, ioctl, fcntl, tgkill, prlimit64",
    [("x86_64", 257, 0, 16, 72, 234, 302), ("aarch64", 56, 63, 29, 25, 131, 261)],
)
def test_the_filter_of_each_machine(machine, openat, read, ioctl, fcntl, tgkill, prlimit64):
    assert verdict(machine, openat) == EPERM and verdict(machine, read) == PASS
    assert verdict(machine, 424) == verdict(machine, 435) == verdict(machine, 1 << 31) == ENOSYS
    assert verdict(machine, 423) == PASS
    assert verdict(machine, read, architecture=1) == KILL
    assert verdict(machine, ioctl, 0, 0x5401) == verdict(machine, ioctl, 0, 0x5451) == PASS
    assert verdict(machine, ioctl, 0, 0x5452) == verdict(machine, ioctl, 0x5401) == EPERM  # FIOASYNC
    assert verdict(machine, fcntl, 0, 1033) == PASS and verdict(machine, fcntl, 0, 8) == EPERM
    assert verdict(machine, tgkill, os.getpid()) == PASS
    assert verdict(machine, tgkill, os.getppid()) == verdict(machine, tgkill, 0, os.getpid()) == EPERM
    assert verdict(machine, prlimit64, 0, 7, 0, 1) == PASS
    for arguments in ((1, 7, 0, 1), (0, 7, 1, 0), (0, 7, 1 << 32, 0)):
        assert verdict(machine, prlimit64, *arguments) == EPERM
    column = sandbox._AUDIT_ARCHITECTURES[machine][1]
    numbers = [numbers[column] for numbers in sandbox._REFUSED.values() if numbers[column] >= 0]
    assert len(set(numbers)) == len(numbers)
    assert all(verdict(machine, number) == EPERM for number in numbers)


@pytest.mark.parametrize(
    "column, header", [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")]
)
def test_the_numbers_are_those_of_the_kernel(column, header):
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed")
    text = Path(header).read_text()
    of_kernel = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    listed = sandbox._REFUSED | {name: numbers for name, (numbers, _) in sandbox._allowed_arguments().items()}
    assert {name: numbers[column] for name, numbers in listed.items()} == {
        name: of_kernel.get(name, -1) for name in listed
    }


@pytest.mark.parametrize("action", ALLOWED)
def test_what_a_decoder_needs_is_allowed(action, tmp_path):
    assert outcome(action, tmp_path / "file") == "done"


def test_a_thread_of_the_sandbox_can_still_end_itself(tmp_path):
    script = SCRIPT.replace("ACTION", "lambda: signal.raise_signal(signal.SIGABRT)")
    (tmp_path / "file").touch()
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")]).returncode == -6
