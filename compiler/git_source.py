"""Git sources: a repository at a commit as one layer, for ADD, contexts and named contexts.

The `git` program does the work, with nothing of the user's or the machine's configuration, no hooks, no prompts, and
no transports but http(s), ssh and git. What it checks out is data: files are taken by ContextTree, links as links.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from cache import encoding
from cache.errors import DefinitionError, EnvironmentProblem, RemoteError, UsageError
from compiler.fetched_layers import find_fetched, keep_fetched
from compiler.secret_values import shown_url
from worker.context import ContextTree
from worker.copy_plan import CopyPlan
from worker.copy_write import write_plan
from worker.ignore import IgnoreRules

if TYPE_CHECKING:
    from cache.result import Layer
    from cache.store import Batch, Store
    from worker.library import LayerLibrary

SECONDS = 600.0
"""How long one call of git may take; a clone of a large history over a slow line takes minutes."""
PROTOCOLS = "http:https:ssh:git"
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_QUERY = frozenset(
    {"ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime", "fetch-by-commit"}
)


class GitUrl(NamedTuple):
    """ref: branch, tag or commit, "" for the default branch. subdir: below the repository's root. checksum: what the
    commit's id must begin with. keep: keep `.git`. submodules: check them out too."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep: bool = False
    submodules: bool = True


def parse_git_url(text: str) -> GitUrl:
    """`REMOTE[#REF[:SUBDIR]]` or `REMOTE?ref=…&subdir=…`. Raises UsageError."""
    remote, _, fragment = text.partition("#")
    ref, _, subdir = fragment.partition(":")
    fields: dict[str, str] = {}
    if "?" in remote:
        remote, _, query = remote.partition("?")
        fields = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(fields.keys() - _QUERY)
        if unknown:
            hint = f"known are {', '.join(sorted(_QUERY))}"
            raise UsageError(f"{shown_url(text)}: unknown query {unknown[0]!r}", hint=hint)
    if (urlsplit(remote).hostname or "").startswith("-"):
        raise UsageError(f"{shown_url(text)}: not a host")
    ref = fields.get("ref") or fields.get("tag") or fields.get("branch") or ref
    if ref.startswith("-") or any(ord(character) < 33 for character in ref):
        raise UsageError(f"{shown_url(text)}: {ref!r} is no branch, tag or commit")
    checksum = fields.get("checksum") or fields.get("commit") or ""
    if checksum and not re.fullmatch(r"[0-9a-f]{7,64}", checksum):
        raise UsageError(f"{shown_url(text)}: the checksum {checksum!r} is no commit id")
    return GitUrl(
        remote=remote,
        ref=ref,
        subdir=(fields.get("subdir") or subdir).strip("/"),
        checksum=checksum,
        keep=_flag(fields.get("keep-git-dir", "false")),
        submodules=_flag(fields.get("submodules", "true")),
    )


def _flag(text: str) -> bool:
    return text.lower() in ("", "1", "true", "yes", "on")


class GitRepositories:
    """Brings repositories into the store. A commit that was there before is not fetched again."""

    def __init__(self, store: Store, library: LayerLibrary) -> None:
        self._store = store
        self._library = library
        self._commits: dict[tuple[str, str], str] = {}

    def time(self, url: GitUrl) -> int:
        """When the commit was made: seconds since the epoch. Raises as `layer`."""
        _, commit = self.layer(url)
        record = self._store.get("fetches", f"git-time:{commit}")
        return int(record) if record is not None else 0

    def layer(self, url: GitUrl) -> tuple[Layer, str]:
        """The files as one layer that belongs to root, and the commit. Raises RemoteError, DefinitionError."""
        commit = self._commit(url)
        if url.checksum and not commit.startswith(url.checksum):
            raise DefinitionError(f"{shown_url(url.remote)} is at {commit}, not at {url.checksum}")
        key = "git:" + encoding.key("git", [url.remote, commit, url.subdir, url.keep, url.submodules])
        layer = find_fetched(self._store, key)
        if layer is None:
            layer, batch, made_at = self._check_out(url, commit)
            time = str(made_at).encode()
            keep_fetched(self._store, key, layer, batch, ("fetches", f"git-time:{commit}", time))
        return layer, commit

    def _commit(self, url: GitUrl) -> str:
        """Ask the remote what a branch or tag means; a whole commit id needs no asking."""
        if _COMMIT.fullmatch(url.ref):
            return url.ref
        known = self._commits.get((url.remote, url.ref))
        if known is None:
            names = [url.ref or "HEAD", f"refs/heads/{url.ref}", f"refs/tags/{url.ref}", f"refs/tags/{url.ref}^{{}}"]
            listed = self._git("ls-remote", "--", url.remote, *(names if url.ref else names[:1]))
            rows = (line.split("\t", 1) for line in listed.splitlines() if "\t" in line)
            found = {name: commit for commit, name in rows}
            # An annotated tag means the commit behind it.
            order = [names[3], names[2], names[1], names[0]] if url.ref else ["HEAD"]
            known = next((found[name] for name in order if name in found), None)
            if known is None or not _COMMIT.fullmatch(known):
                if url.checksum and len(url.checksum) >= 40:
                    return url.checksum
                raise DefinitionError(f"{shown_url(url.remote)} has no branch, tag or commit {url.ref or 'HEAD'!r}")
            self._commits[url.remote, url.ref] = known
        return known

    def _check_out(self, url: GitUrl, commit: str) -> tuple[Layer, Batch, int]:
        """The layer, what makes it durable, and the time of the commit."""
        place = self._store.scratch("git")
        os.mkdir(place, 0o700)
        self._git("init", "--quiet", "--template=", place)
        self._git("remote", "add", "origin", url.remote, at=place)
        try:
            self._git("fetch", "--quiet", "--depth=1", "--no-tags", "origin", commit, at=place)
        except RemoteError:
            # Not every server gives out a commit by its id; then all of it is needed.
            self._git("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*", at=place)
        self._git("checkout", "--quiet", "--detach", commit, "--", at=place)
        made_at = int(self._git("log", "-1", "--format=%ct", commit, "--", at=place).strip() or 0)
        if url.submodules:
            self._git("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", at=place)
        if not url.keep:
            _remove_git_directories(place)
        elif shown_url(url.remote) != url.remote:
            _forget_passwords(place)
        tree = ContextTree(place, IgnoreRules.from_patterns(()), self._store)
        found = tree.resolve(url.subdir)
        if found.entry is None:
            raise DefinitionError(f"{shown_url(url.remote)} has no directory {url.subdir!r} at {commit[:12]}")
        plan = CopyPlan(self._library.rootfs(()), owner=(0, 0), mode="", now=0)
        plan.content("", tree, found.path)
        layer, batch = self._library.write_layer(lambda fd: write_plan(plan, fd))
        return layer, batch, made_at

    def _git(self, *arguments: str, at: str = "/") -> str:
        program = shutil.which("git")
        if program is None:
            raise EnvironmentProblem("sources from git need the git program", hint="apt-get install git")
        options = [
            "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", "-c", "core.fsmonitor=false",
            "-c", "credential.helper=", "-c", "advice.detachedHead=false", "-c", "core.symlinks=true",
        ]  # fmt: skip
        for protocol in PROTOCOLS.split(":"):
            options += ["-c", f"protocol.{protocol}.allow=always"]
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true", "SSH_ASKPASS_REQUIRE": "never", "GIT_ALLOW_PROTOCOL": PROTOCOLS,
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        }  # fmt: skip
        if "SSH_AUTH_SOCK" in os.environ:
            environment["SSH_AUTH_SOCK"] = os.environ["SSH_AUTH_SOCK"]
        try:
            done = subprocess.run(
                [program, *options, *arguments], cwd=at, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RemoteError(f"git {arguments[0]} did not end within {SECONDS:.0f} s") from None
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise RemoteError(f"git {arguments[0]} failed: {shown_url(reason[-1]) if reason else 'without a word'}")
        return done.stdout.decode("utf-8", "surrogateescape")


def _forget_passwords(place: str) -> None:
    """Git writes the URLs of remotes down, in what becomes a layer: those of the repository and of its submodules."""
    for directory, _, files in os.walk(os.path.join(place, ".git")):
        if "config" in files:
            path = os.path.join(directory, "config")
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(shown_url(text))


def _remove_git_directories(place: str) -> None:
    """The repository's own `.git`, and those of its submodules, which are files that point into it."""
    from cache.run_dir import remove_tree

    for directory, names, files in os.walk(place):
        for name in [name for name in (*names, *files) if name == ".git"]:
            remove_tree(os.path.join(directory, name))
        names[:] = [name for name in names if name != ".git"]
