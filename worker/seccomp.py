"""The system calls that a step may make: docker's default set, compiled to BPF once and kept."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import json
import os
from typing import Any

from cache.errors import EnvironmentProblem

PROFILE = os.path.join(os.path.dirname(__file__), "seccomp.json")
"""What docker allows with its default capabilities. Everything unnamed answers ENOSYS, so that a C library falls back
as it would on an older kernel (so does clone3, whose flags are behind a pointer that a filter cannot read); what
docker refuses by name answers EPERM. Of device nodes only the harmless ones can be made: docker leaves their use to a
device cgroup, which steps here do not have."""

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_COMPARE = {"ne": 1, "eq": 4, "masked_eq": 7}
_OCI_COMPARE = {"ne": "SCMP_CMP_NE", "eq": "SCMP_CMP_EQ", "masked_eq": "SCMP_CMP_MASKED_EQ"}
# SCMP_ARCH tokens of the 32-bit ABIs that a kernel also serves.
_SUBARCHITECTURES = {"x86_64": (0x40000003, 0x4000003E), "aarch64": (0x40000028,)}
_OCI_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}
_FLTATR_CTL_OPTIMIZE = 8
_UNKNOWN_SYSCALL = -1


class _Argument(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint), ("op", ctypes.c_int), ("value", ctypes.c_uint64), ("value_two", ctypes.c_uint64),
    )  # fmt: skip


@functools.cache
def _profile() -> dict[str, Any]:
    with open(PROFILE, encoding="utf-8") as file:
        profile: dict[str, Any] = json.load(file)
    return profile


def oci_profile() -> dict[str, Any]:
    """The profile as the OCI runtime specification writes it."""
    profile = _profile()

    def rule(names: list[str], action: str, errno: int | None = None, args: Any = None) -> dict[str, Any]:
        made: dict[str, Any] = {"names": names, "action": action}
        if errno is not None:
            made["errnoRet"] = errno
        if args:
            made["args"] = args
        return made

    rules = [
        rule(profile["allow"], "SCMP_ACT_ALLOW"),
        rule(profile["deny"], "SCMP_ACT_ERRNO", profile["deny_errno"]),
    ]
    for condition in profile["allow_if"]:
        arguments = [
            {
                "index": one["index"], "value": one["value"], "valueTwo": one.get("value_two", 0),
                "op": _OCI_COMPARE[one["op"]],
            }
            for one in _all_of(condition)
        ]  # fmt: skip
        rules.append(rule([condition["name"]], "SCMP_ACT_ALLOW", None, arguments))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": profile["default_errno"],
        "architectures": _OCI_ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": rules,
    }


def _all_of(condition: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of a rule, all of which must hold."""
    return [condition, condition["and"]] if "and" in condition else [condition]


def compile_bpf() -> bytes:
    """The profile as a BPF program for this machine, by libseccomp. Raises EnvironmentProblem.

    crun takes it as it is, which saves it 13 of the 18 ms that it needs to start.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise EnvironmentProblem("libseccomp is missing", hint="apt-get install libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    profile = _profile()
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | profile["default_errno"])))
    try:
        for token in _SUBARCHITECTURES.get(os.uname().machine, ()):
            _check(library.seccomp_arch_add(context, ctypes.c_uint32(token)))
        library.seccomp_attr_set(context, _FLTATR_CTL_OPTIMIZE, ctypes.c_uint32(2))  # a binary tree, not a list
        for name in profile["allow"]:
            _add(library, context, _ALLOW, name)
        for name in profile["deny"]:
            _add(library, context, _ERRNO | profile["deny_errno"], name)
        for condition in profile["allow_if"]:
            arguments = [
                _Argument(one["index"], _COMPARE[one["op"]], one["value"], one.get("value_two", 0))
                for one in _all_of(condition)
            ]
            _add(library, context, _ALLOW, condition["name"], *arguments)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, action: int, name: str, *arguments: _Argument) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN_SYSCALL:
        return  # this libseccomp is older than the call, which then answers ENOSYS
    array = (_Argument * max(1, len(arguments)))(*arguments)
    _check(
        library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, ctypes.c_uint(len(arguments)), array)
    )


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    fd = os.memfd_create("seccomp")
    try:
        _check(library.seccomp_export_bpf(context, fd))
        size = os.lseek(fd, 0, os.SEEK_CUR) or os.fstat(fd).st_size
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _check(result: int) -> None:
    if result < 0:
        raise EnvironmentProblem(f"libseccomp cannot compile the system call filter: {os.strerror(-result)}")
