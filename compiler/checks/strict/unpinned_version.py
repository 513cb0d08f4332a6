"""UnpinnedVersion: a base image or package without a version: next month the file builds something else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.checks.shell import commands, run_script
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compiler.checks.file import CheckedFile, CheckedStage

_WITH_VALUE = {
    "apt": {"-t", "--target-release", "-o", "-c"},
    "apk": {"-t", "--virtual", "-X", "--repository", "-p", "--root", "--arch"},
    "pip": {
        "-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-t", "--target", "-i", "--index-url",
        "--extra-index-url", "-f", "--find-links", "--prefix", "--root", "--platform", "--python-version",
        "--trusted-host", "--progress-bar", "--timeout", "--retries", "--cache-dir",
    },
    "npm": {"--prefix", "--registry", "--cache", "-w", "--workspace"},
    "gem": {"-i", "--install-dir", "-n", "--bindir", "-s", "--source"},
}  # fmt: skip
"""Options whose value is the next word."""
_INSTALL = {
    "apt-get": ("apt", "install"),
    "apt": ("apt", "install"),
    "apk": ("apk", "add"),
    "pip": ("pip", "install"),
    "pip3": ("pip", "install"),
    "npm": ("npm", "install"),
    "gem": ("gem", "install"),
}
_SHORT = {"npm": {"i", "add"}, "gem": {"i"}}
_EXAMPLE = {"apt": "=1.2-3", "apk": "=1.2-r3", "pip": "==1.2.3", "npm": "@1.2.3", "gem": ":1.2.3"}
_PINNED: dict[str, Callable[[str], bool]] = {
    "apt": lambda name: "=" in name or "/" in name or name.endswith(".deb"),
    "apk": lambda name: bool(re.search(r"[=<>~]", name)) or name.startswith(".") or name.endswith(".apk"),
    "pip": lambda name: bool(re.search(r"[=<>~@/]|\.whl|\.tar|\.zip", name)) or name.startswith("."),
    "npm": lambda name: "@" in name[1:] or "/" in name.removeprefix("@").partition("/")[2] or _is_local(name),
    "gem": lambda name: ":" in name or name.endswith(".gem"),
}


def check(file: CheckedFile) -> Iterator[Problem]:
    """FROM without a tag or with latest, and packages without a version in apt, apk, pip, npm and gem."""
    for view in file.active:
        yield from _image(file, view)
        for instruction in view.stage.instructions:
            if isinstance(instruction, ast.Run):
                yield from _packages(instruction)


def _image(file: CheckedFile, view: CheckedStage) -> Iterator[Problem]:
    from_ = view.stage.from_
    outside = file.is_outside(view.image) or file.is_outside(from_.name)
    if not view.image or view.parent is not None or view.image == "scratch" or outside:
        return
    name, _, digest = view.image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and tag in ("", "latest") and not name.endswith(":"):  # a tag that only --build-arg gives
        what = "has no tag" if not tag else "has the tag latest, which moves"
        advice = f"FROM {name.removesuffix(':latest')}:VERSION, or @sha256:… for exactly one image"
        yield Problem(from_, f"Base image {view.image} {what}", advice, from_.span.find(from_.image))


def _packages(instruction: ast.Run) -> Iterator[Problem]:
    for command in commands(run_script(instruction)):
        words = command.plain
        if words[1:3] == ("-m", "pip") and words[0].startswith("python"):
            words = words[2:]
        manager, verb = _INSTALL.get(words[0] if words else "", ("", ""))
        arguments = [word for word in words[1:] if not word.startswith("-")]
        if not manager or not arguments or arguments[0] not in {verb, *_SHORT.get(manager, ())}:
            continue
        if manager == "gem" and {"-v", "--version"} & set(words):
            continue
        loose = [name for name in _names(manager, words) if not _PINNED[manager](name)]
        if loose:
            shown = ", ".join(loose[:5]) + (", …" if len(loose) > 5 else "")
            message = f"Packages without a version: {shown}"
            yield Problem(instruction, message, f"{loose[0]}{_EXAMPLE[manager]}", instruction.span.find(loose[0]))


def _names(manager: str, words: tuple[str, ...]) -> Iterator[str]:
    """The packages among the words of an install command; none whose name only the shell knows."""
    skip = False
    started = False
    for word in words[1:]:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in _WITH_VALUE[manager]
        elif re.match(r"\d*[<>&]", word):
            skip = word.rstrip("&|").endswith((">", "<"))
        elif not started:
            started = True
        else:
            name = word.strip("'\"")
            if name and not re.search(r"[$`*{]", name) and not _is_local(name):
                yield name


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "://" in name
