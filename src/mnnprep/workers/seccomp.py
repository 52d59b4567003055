"""A seccomp filter: the kernel refuses this process the system calls that reach beyond its files.

Landlock keeps a process to its files; it leaves sockets (but for TCP), the attributes of files, and other
processes' memory. Those calls are refused here with EPERM, by number, whatever their arguments; all others
pass.  The filter is a classic BPF program over ``struct seccomp_data`` (<linux/seccomp.h>), as seccomp(2)
describes it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
import sys

from mnnprep.workers.libc import prctl

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: ld [k]; jeq k; jge k; ret k
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # offsets in seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X32 = 0x40000000  # calls of x86-64's second interface, numbered from here

# <linux/audit.h>: AUDIT_ARCH_*; the numbers are those of <asm/unistd.h>, x86-64 and aarch64.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

Calls = dict[str, tuple[int | None, int | None]]

EXECUTE: Calls = {"execve": (59, 221), "execveat": (322, 281)}
NETWORK: Calls = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
}
ALWAYS: Calls = {
    # another way to make any of the calls refused here
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    # what Landlock does not govern of a file outside the scratch: its mode, owner, times and attributes
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # the kernel's keys, programs and counters
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    # what takes a process out of where it is
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.c_char_p))


def missing() -> str:
    """Why there is no filter on this system; empty if there is."""
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp"
    if platform.machine() not in _ARCHITECTURES:
        return f"the numbers of system calls on {platform.machine()} are not known here"
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return "this Python is a 32-bit program"
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return "this kernel was built without seccomp"
    return ""


def refuse(*, network: bool, execute: bool) -> None:
    """Refuse the calls of ALWAYS to the calling thread and all that it starts.

    Without *network* also those of NETWORK, without *execute* those of EXECUTE. ``no_new_privs`` must be set.

    Raises:
        OSError: the kernel does not take the filter.
    """
    program = _program(network, execute)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))


@functools.cache
def _program(network: bool, execute: bool) -> _Program:
    calls = ALWAYS | ({} if network else NETWORK) | ({} if execute else EXECUTE)
    instructions = _filter(calls, platform.machine())
    return _Program(len(instructions), b"".join(struct.pack("=HBBI", *fields) for fields in instructions))


def _filter(calls: Calls, machine: str) -> list[tuple[int, int, int, int]]:
    """Return the program, as code, jumps and operand.

    It is one test a call, each with a jump to the end, which refuses.
    """
    architecture, column = _ARCHITECTURES[machine]
    numbers = sorted(number for pair in calls.values() if (number := pair[column]) is not None)
    tests = [(_EQUAL, n) for n in numbers]
    if machine == "x86_64":
        tests.insert(0, (_AT_LEAST, _X32))
    head = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 0, len(tests) + 2, architecture),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    body = [(code, len(tests) - i, 0, k) for i, (code, k) in enumerate(tests)]
    return [*head, *body, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
