"""Sandbox: a process gives up, for good, what a decoder does not need. Linux on x86_64 and aarch64.

A seccomp filter refuses (EPERM) to open or change files, to use the network, to start processes or threads, and to
touch other processes. Descriptors that are open stay usable, and memory files can be made. It can still be asked
whether a path exists. See seccomp(2).

The filter is a list of what is refused, made from the whole list of system calls up to Linux 5.0. A list of what is
allowed would have to foresee what every libc, Python, allocator and decoder of users calls; what it forgot would make
good files fail. All later calls are refused as unknown (ENOSYS), as Linux 5.0 does, so that none is forgotten. That
breaks nothing: every libc has to run on older kernels, and falls back.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
_LOAD, _EQUAL, _GREATER_OR_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of classic BPF
#: The first call after Linux 5.0, on both machines: pidfd_send_signal. io_uring, clone3, openat2, new mounts follow.
#: Those of x86_64's other set of calls (x32) are above it, too: their numbers have the bit 0x40000000.
_FIRST_LATER = 424

#: System calls that are refused: name -> number on x86_64 and on aarch64; -1 where it does not exist.
_REFUSED = {
    # paths: open, make, rename, remove; and what names or watches files
    "open": (2, -1),
    "openat": (257, 56),
    "creat": (85, -1),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "uselib": (134, -1),
    "unlink": (87, -1),
    "unlinkat": (263, 35),
    "rename": (82, -1),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, -1),
    "linkat": (265, 37),
    "symlink": (88, -1),
    "symlinkat": (266, 36),
    "mkdir": (83, -1),
    "mkdirat": (258, 34),
    "rmdir": (84, -1),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "truncate": (76, 45),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "inotify_init": (253, -1),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # attributes and locks of files; an owner may change those of a descriptor that is open for reading
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "flock": (73, 32),
    # the network
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # processes and threads; signals, memory, limits and priorities of others
    "fork": (57, -1),
    "vfork": (58, -1),
    "clone": (56, 220),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "perf_event_open": (298, 241),
    # memory, queues and keys that processes share
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # the machine, which a child of root could change; and parts of the kernel that had faults
    "mount": (165, 40),
    "umount2": (166, 39),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "modify_ldt": (154, -1),
    "_sysctl": (156, -1),
    "lookup_dcookie": (212, 18),
    "sync": (162, 81),
    "syncfs": (306, 267),
}
#: What is allowed of ioctl and fcntl. Others change files, and have the kernel signal other processes (F_SETOWN).
_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451  # of ioctl(2)
_FCNTL = (fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_DUPFD_CLOEXEC)
_SEALS = (fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS)


_AUDIT_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def enter_sandbox() -> None:
    """Refuse to this process, from now on, what the module's text lists.

    Raises:
        OSError: the platform does not allow it: another processor or system, or a kernel without seccomp.
    """
    machine = platform.machine()
    if os.uname().sysname != "Linux" or machine not in _AUDIT_ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"there is no filter of system calls for {os.uname().sysname} on {machine}")
    program = _filter(machine)
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    for option, *arguments in (
        (_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero),
        (_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, zero, zero),
    ):
        if libc.prctl(option, *arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _filter(machine: str) -> bytes:
    """The filter as a program of classic BPF: (code, jump if true, jump if false, constant) of 8 bytes each."""
    architecture, column = _AUDIT_ARCHITECTURES[machine]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program += [(_GREATER_OR_EQUAL, 0, 1, _FIRST_LATER), (_RETURN, 0, 0, _UNKNOWN)]
    for numbers in _REFUSED.values():
        if numbers[column] >= 0:
            program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _REFUSE)]
    for numbers, arguments in _allowed_arguments().values():
        checks = []
        for half, values in arguments.items():
            checks.append((_LOAD, 0, 0, 16 + 4 * half))
            checks += [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
            checks.append((_RETURN, 0, 0, _REFUSE))
        program += [(_EQUAL, 0, len(checks) + 1, numbers[column]), *checks, (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _allowed_arguments() -> dict[str, tuple[tuple[int, int], dict[int, tuple[int, ...]]]]:
    """Calls that are allowed with some arguments only: name -> numbers, and half of an argument -> its allowed values.

    Argument n has the halves 2n, its lower 32 bits, and 2n + 1. An `int` is its lower half.
    """
    return {
        "ioctl": ((16, 29), {2: (_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX)}),
        "fcntl": ((72, 25), {2: _FCNTL + _SEALS}),
        "tgkill": ((234, 131), {0: (os.getpid(),)}),  # raise and abort
        "prlimit64": ((302, 261), {0: (0,), 4: (0,), 5: (0,)}),  # to read the own limits: no new ones
    }
