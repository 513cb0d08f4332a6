"""Rules about what comes from outside: platforms of base images, and files of the context."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile


_REDUNDANT = ("$TARGETPLATFORM", "${TARGETPLATFORM}")


def invalid_base_image_platform(file: CheckedFile) -> Iterator[Problem]:
    """A base image that is at hand turns out to be for another platform; silent about images that are not."""
    for view in file.active:
        config, wanted = view.config, view.platform
        if config is None or wanted is None or view.parent is not None:
            continue
        if (config.os, config.architecture) != (wanted.os, wanted.architecture):
            from cache.platform import Platform

            pulled = Platform.of(config.os, config.architecture, config.variant)
            message = (
                f'Base image {view.image} was pulled with platform "{pulled}", expected "{wanted}" for current build'
            )
            from_ = view.stage.from_
            advice = f"use a tag of the image that has {wanted}, or build with --platform {pulled}"
            yield Problem(from_, message, advice, from_.span.find(from_.image))


def redundant_target_platform(file: CheckedFile) -> Iterator[Problem]:
    """--platform=$TARGETPLATFORM, which is the default."""
    for view in file.active:
        from_ = view.stage.from_
        if from_.platform in _REDUNDANT:
            message = (
                f"Setting platform to predefined {from_.platform} in FROM is redundant as this is the default behavior"
            )
            yield Problem(from_, message, "remove --platform", from_.span.find("--platform"))


def from_platform_flag_const_disallowed(file: CheckedFile) -> Iterator[Problem]:
    """A --platform without variables, unless the stage's name says that it is for one platform."""
    for view in file.active:
        from_ = view.stage.from_
        platform = view.platform
        if not from_.platform or "$" in from_.platform or platform is None:
            continue
        if platform.os in from_.name or platform.architecture in from_.name:
            continue
        message = f'FROM --platform flag should not use constant value "{from_.platform}"'
        advice = "remove it and build with --platform, or use $BUILDPLATFORM for a stage that cross-compiles"
        yield Problem(from_, message, advice, from_.span.find("--platform"))


def copy_ignored_file(file: CheckedFile) -> Iterator[Problem]:
    """A source that the ignore file leaves out. Silent where that file takes anything back with `!`, as BuildKit is."""
    sources = list(_sources(file))
    rules = file.ignore() if sources else None
    if not rules or any(pattern.startswith("!") for pattern in rules.digest_input().split("\n")):
        return
    for instruction, written, path in sources:
        if rules.ignored(path):
            verb = "Add" if isinstance(instruction, ast.Add) else "Copy"
            message = f'Attempting to {verb} file "{path}" that is excluded by .dockerignore'
            advice = "copy something else, or take the file out of .dockerignore"
            yield Problem(instruction, message, advice, instruction.span.find(written))


def _sources(file: CheckedFile) -> Iterator[tuple[ast.Copy | ast.Add, str, str]]:
    """Instruction, source as written, and the path in the context that it means; nothing of the whole context."""
    from compiler.git_words import is_git
    from compiler.steps import is_url

    for view in file.active:
        for step in view.steps:
            instruction = step.instruction
            if not isinstance(instruction, ast.Copy | ast.Add):
                continue
            if isinstance(instruction, ast.Copy) and instruction.from_:
                continue
            for written in instruction.sources:
                path = step.before.expand(written)
                if not path or (isinstance(instruction, ast.Add) and (is_url(path) or is_git(path))):
                    continue
                path = posixpath.normpath("/" + path).strip("/")
                if path:
                    yield instruction, written, path
