"""The system calls that a step may make: the filter is loaded into a child that then tries some."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest

from tests.cache.layers import in_child
from worker.seccomp import compile_bpf, oci_profile

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
CLONE_NEWUSER = 0x10000000
X86 = os.uname().machine == "x86_64"


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filtered(number: int, *arguments: int) -> int:
    """0 or the error number of a system call under the filter."""

    def call() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        bpf = compile_bpf()
        program = Program(len(bpf) // 8, bpf)
        assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
        result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
        return 0 if result >= 0 else ctypes.get_errno()

    found: int = in_child(call)
    return found


def test_the_filter_is_a_program_of_whole_instructions_and_always_the_same() -> None:
    bpf = compile_bpf()
    assert len(bpf) % 8 == 0
    assert 50 < len(bpf) // 8 < 4096, "the kernel's bound"
    assert compile_bpf() == bpf
    operations = {struct.unpack_from("<H", bpf, at)[0] for at in range(0, len(bpf), 8)}
    assert 0x06 in operations, "it returns"


@pytest.mark.skipif(not X86, reason="the numbers below are those of x86_64")
@pytest.mark.parametrize(
    ("name", "number", "arguments", "expected"),
    [
        ("getpid", 39, (), 0),
        ("write", 1, (1 << 20, 0, 0), errno.EBADF),
        ("openat2 is known", 437, (-1, 0, 0, 0), errno.EINVAL),
        ("personality 0", 135, (0,), 0),
        ("personality with ADDR_NO_RANDOMIZE", 135, (0x0040000,), errno.ENOSYS),
        ("keyctl", 250, (0, 0, 0, 0, 0), errno.EPERM),
        ("add_key", 248, (0, 0, 0, 0, 0), errno.EPERM),
        ("kexec_load", 246, (0, 0, 0, 0), errno.EPERM),
        ("mount", 165, (0, 0, 0, 0, 0), errno.EPERM),
        ("bpf", 321, (0, 0, 0), errno.EPERM),
        ("unshare of a user namespace", 272, (CLONE_NEWUSER,), errno.EPERM),
        ("clone3, so that libraries use clone", 435, (0, 0), errno.ENOSYS),
        ("a call of the future", 600, (), errno.ENOSYS),
        ("socket of AF_VSOCK", 41, (40, 1, 0), errno.ENOSYS),
    ],
)
def test_what_a_step_may_call(name: str, number: int, arguments: tuple[int, ...], expected: int) -> None:
    assert filtered(number, *arguments) == expected


def test_both_forms_of_the_profile_say_the_same() -> None:
    profile = oci_profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == errno.ENOSYS
    allowed = {name for rule in profile["syscalls"] for name in rule["names"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule}
    denied = {name for rule in profile["syscalls"] for name in rule["names"] if rule["action"] == "SCMP_ACT_ERRNO"}
    assert {"read", "execve", "openat2", "clone"} - allowed <= {"clone"}
    assert {"mount", "keyctl", "kexec_load", "init_module", "reboot"} <= denied
    assert not allowed & denied
