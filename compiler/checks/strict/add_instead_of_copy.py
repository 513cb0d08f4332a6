"""AddInsteadOfCopy: ADD for a plain file of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast
from compiler.git_words import is_git
from compiler.steps import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile, Step

_ARCHIVES = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lzma", ".gz",
    ".bz2", ".xz", ".zst",
)  # fmt: skip


def check(file: CheckedFile) -> Iterator[Problem]:
    """ADD of something that is neither fetched nor unpacked."""
    for view in file.active:
        for step in view.steps:
            instruction = step.instruction
            if isinstance(instruction, ast.Add) and not instruction.unpack and not _needs_add(instruction, step):
                what = " ".join(instruction.sources) or "a heredoc"
                advice = f"COPY {' '.join((*instruction.sources, instruction.destination))}"
                yield Problem(instruction, f"ADD is not needed for {what}: it would unpack and fetch", advice)


def _needs_add(instruction: ast.Add, step: Step) -> bool:
    sources = [step.before.expand(source) for source in instruction.sources]
    return any(
        not source or is_url(source) or is_git(source) or source.lower().endswith(_ARCHIVES) for source in sources
    )
