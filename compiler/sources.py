"""Sources: what a Dockerfile takes from outside: base images, contexts, files of the web."""

from __future__ import annotations

import contextlib
import os
import posixpath
from typing import TYPE_CHECKING

from cache import encoding
from cache.entry import FILE, Entry
from cache.errors import StoreProblem, UsageError
from cache.image_config import ImageConfig
from cache.reference import InvalidReference, Reference
from compiler.dockerfile.ignore import parse_ignore_file
from compiler.git_words import is_git
from compiler.graph import ContextSource, HttpSource, ImageSource
from compiler.lookup import all_present
from compiler.lower import Image
from compiler.secret_configs import known_secrets
from compiler.secret_values import shown_url
from compiler.steps import is_url, url_file_name
from compiler.text_file import read_text_file, refuse_outside
from worker.context import ContextTree
from worker.ignore import IgnoreRules
from worker.tree import FileTree, Tree

if TYPE_CHECKING:
    from cache.images import Images, StoredImage
    from cache.lmdb_store import LmdbStore
    from cache.platform import Platform
    from cache.result import Layer
    from cache.store import Table
    from compiler.changed import Changed
    from compiler.git_source import GitUrl
    from compiler.graph import Node
    from compiler.http_files import HttpFiles
    from compiler.options import BuildOptions
    from compiler.remote_cache import RemoteCache
    from compiler.remote_context import RemoteContexts

IGNORE_FILE = ".dockerignore"
MAX_IGNORE = 4 << 20
"""Bytes of an ignore file."""
MAX_CHAIN = 10
"""Named contexts that may lead to one another, BuildKit's own limit."""
_SCHEMES = ("docker-image://", "oci-layout://")
HTTP_MODE = 0o600
"""Mode of a file that ADD fetches, as docker has it."""


class Sources:
    """Answers what lowering and keys ask about the world. context: the directory, None if the build has none."""

    def __init__(
        self,
        store: LmdbStore,
        images: Images,
        http: HttpFiles,
        options: BuildOptions,
        context: str | None,
        dockerfile_path: str | None,
        remote: RemoteContexts,
        changed: tuple[Changed, ...] = (),
        team: RemoteCache | None = None,
    ) -> None:
        """dockerfile_path: where the Dockerfile was read, for its own ignore file beside it; None for stdin. team: a
        cache server whose layers count as present."""
        self._team = team
        self._changed = changed
        self._store = store
        self._images = images
        self._http = http
        self._options = options
        self._context = context
        self._dockerfile_path = dockerfile_path
        self._contexts = dict(options.contexts)
        self._remote = remote
        self._main: ImageSource | None = None
        self._resolved: dict[tuple[str, str], Image] = {}
        self._trees: dict[str, Tree] = {}
        self._context_trees: list[ContextTree] = []

    # Bases

    def image(self, name: str, platform: Platform) -> Image:
        """The store's own image of this name, else one that was pulled before, else the registry's."""
        key = (name, str(platform))
        found = self._resolved.get(key)
        if found is None:
            reference = Reference.parse(name)
            stored = self._stored(reference, platform)
            if stored is None or (stored.pulled and self._options.pull):
                stored = self._images.pull(reference, platform)
            found = self._resolved[key] = self._found(name, reference, stored)
        return found

    def _stored(self, reference: Reference, platform: Platform) -> StoredImage | None:
        """The store's image of this name, all of whose layers can be had. Raises StoreProblem."""
        try:
            stored = self._images.get(str(reference), platform)
        except encoding.UNREADABLE:
            raise StoreProblem(
                f"what the store says of the image {reference.familiar} cannot be read",
                hint=f"forget it with: buildgraph image rm {reference.familiar}",
            ) from None
        # A layer of another's image can be fetched again. The registry must not be asked for an image of ours: whatever
        # has its name there is something else.
        own = [layer.diff_id for layer in stored.layers if layer.content != layer.diff_id] if stored else []
        if own and not all_present(self._store, own, self._team):
            raise StoreProblem(
                f"layers of the image {reference.familiar} are gone from the store",
                hint="build that image again, or with the --remote that has them; it is still known by its name only",
            )
        return stored

    def named_context(self, name: str, platform: Platform) -> Image | ContextSource | None:
        """What --build-context says of this name."""
        value = self._context_value(name, platform)
        if value is None:
            return None
        if value.startswith("docker-image://"):
            return self.image(value.removeprefix("docker-image://"), platform)
        if value.startswith("oci-layout://"):
            return self._layout(name, value.removeprefix("oci-layout://"), platform)
        if is_git(value) or is_url(value):
            return Image(ImageConfig.empty(platform), self._remote_source(name, value))
        return ContextSource(name)

    def _context_value(self, name: str, platform: Platform) -> str | None:
        """The value of a named context, by the name as written or by the image's whole name; chains are followed."""
        value = None
        for _ in range(MAX_CHAIN):
            found = next((self._contexts[each] for each in _spellings(name, platform) if each in self._contexts), None)
            if found is None:
                return value
            value = found
            if not value.startswith("docker-image://"):
                return value
            following = value.removeprefix("docker-image://")
            if following == name:
                return value
            name = following
        raise UsageError(f"--build-context {name}: more than {MAX_CHAIN} named contexts lead to one another")

    def main_context(self) -> ContextSource | ImageSource:
        """The build's own context."""
        return self._main or ContextSource("")

    def repository(self, url: GitUrl) -> ImageSource:
        """A git repository at the commit that its branch or tag means now."""
        layer, commit = self._remote.git.layer(url)
        name = f"{url.remote}#{url.ref or commit[:12]}" + (f":{url.subdir}" if url.subdir else "")
        return ImageSource(name, None, (layer,), commit)

    def take_context(self, where: str) -> Layer | None:
        """Have a git repository, archive or URL be the build's context; None if it is no archive but one file."""
        keep = dict(self._options.build_args).get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "0").lower() in ("1", "true")
        layer = self._remote.layer(where, keep_git=keep)
        if layer is not None:
            self._main = ImageSource(shown_url(where) if "://" in where else "archive", None, (layer,), "")
        return layer

    def _remote_source(self, name: str, where: str) -> ImageSource:
        layer = self._remote.layer(where)
        if layer is None:
            raise UsageError(f"--build-context {name}={shown_url(where)}: it is no archive")
        return ImageSource(shown_url(where), None, (layer,), "")

    def _layout(self, name: str, value: str, platform: Platform) -> Image:
        key = (f"oci-layout://{value}", str(platform))
        found = self._resolved.get(key)
        if found is None:
            directory, reference = _split_layout(value)
            stored = self._images.open_layout(directory, reference, platform)
            found = self._resolved[key] = self._found(name, None, stored)
        return found

    def _found(self, name: str, reference: Reference | None, stored: StoredImage) -> Image:
        source = ImageSource(name, reference, stored.layers, stored.digest)
        return Image(stored.config, source, known_secrets(self._store, stored.config))

    # trees

    def tree(self, node: Node) -> Tree | None:
        """The files of a context or of something fetched; None for images and stages, which have layers."""
        source = node.definition
        if not isinstance(source, ContextSource | HttpSource):
            return None
        tree = self._trees.get(node.id)
        if tree is None:
            tree = self._context_tree(source) if isinstance(source, ContextSource) else self._http_tree(source)
            self._trees[node.id] = tree
        return tree

    def records(self) -> list[tuple[Table, str, bytes]]:
        """What scans of contexts want remembered."""
        return [("stats", key, value) for tree in self._context_trees for key, value in tree.records()]

    def _context_tree(self, source: ContextSource) -> ContextTree:
        if source.name:
            directory = self._contexts[source.name]
            rules = _ignore_rules(directory)
        elif self._context is None:
            raise UsageError("this build has no context to copy from", hint="give a directory instead of -")
        else:
            directory = self._context
            rules = _ignore_rules(directory, f"{self._dockerfile_path}{IGNORE_FILE}" if self._dockerfile_path else "")
        if not os.path.isdir(directory):
            what = f"the context {directory}" if not source.name else f"the named context {source.name}={directory}"
            hint = "" if not source.name else f"with {' or '.join(_SCHEMES)} in front it may be an image, too"
            raise UsageError(f"{what} is not a directory", hint=hint)
        tree = ContextTree(
            directory, rules, self._store, [each.path for each in self._changed if each.context == source.name]
        )
        self._context_trees.append(tree)
        return tree

    def _http_tree(self, source: HttpSource) -> FileTree:
        fetched = self._http.get(source.url, source.checksum, source.shown)
        name = url_file_name(source.url)
        entry = Entry(
            name, FILE, HTTP_MODE, mtime=fetched.modified, size=fetched.digest.size, digest=fetched.digest.hash
        )
        return FileTree(entry, lambda: os.open(self._store.blob_path(fetched.digest), os.O_RDONLY | os.O_CLOEXEC))


def _spellings(name: str, platform: Platform) -> list[str]:
    """What --build-context may call this name: as it stands, or as the image's name, with a platform or without."""
    names = [name]
    with contextlib.suppress(InvalidReference):
        reference = Reference.parse(name)
        names += [str(reference), reference.familiar, reference.familiar.removesuffix(":latest")]
    return [f"{each}::{platform}" for each in names] + names


def _split_layout(value: str) -> tuple[str, str]:
    """`DIR[:tag|@digest]`; a colon inside of the directory's name is taken for the directory's if that exists."""
    directory, at, digest = value.partition("@")
    if at:
        return directory, digest
    if not os.path.isdir(value):
        directory, colon, tag = value.rpartition(":")
        if colon and "/" not in tag:
            return directory, tag
    return value, ""


def _ignore_rules(directory: str, beside: str = "") -> IgnoreRules:
    """Of the file beside the Dockerfile if there is one, else of the context's own; they are never merged."""
    own = os.path.join(directory, IGNORE_FILE)
    for path in filter(None, (beside, own)):
        if path == own:
            refuse_outside(path, directory)
        data = read_text_file(path, MAX_IGNORE)
        if data is not None:
            return parse_ignore_file(data.decode("utf-8", "surrogateescape"), posixpath.basename(path))
    return IgnoreRules.from_patterns(())


