"""Trees: directories that are blobs, walked from the top, each once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from buildgraph.v1 import remote_execution_pb2 as pb
from google.protobuf.message import DecodeError

from cache.server.limits import MAX_BATCH, MAX_TREE
from cache.server.refusal import exhausted, invalid
from cache.server.wire_digest import name_of, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.server.shelf import Shelf
    from cache.server.wire_digest import Function

PAGE = 1000
"""Directories in one response at most; a full one of usual directories has some 300 KB."""
_TOGETHER = 500
"""Directories that are looked for at once."""


def walk(
    shelf: Shelf, namespace: str, function: Function, root: str, page_size: int, page_token: str
) -> Iterator[pb.GetTreeResponse]:
    """All pages from the one that the token names. Directories that are gone are left out, as the API wants it.

    The walk is the same each time, so a token is the number of directories that were sent. Raises Refused:
    NOT_FOUND if the root is gone.
    """
    if page_size < 0 or not re.fullmatch(r"[0-9]{0,9}", page_token):
        raise invalid("page_size is 0 or more, page_token what an earlier response said")
    limit = min(page_size, PAGE) or PAGE
    skip = int(page_token or 0)
    shelf.find_one(namespace, function, root)
    page = pb.GetTreeResponse()
    sent, size = skip, 0
    for number, directory in enumerate(directories(shelf, namespace, function, root)):
        if number < skip:
            continue
        if page.directories and (len(page.directories) == limit or size + directory.ByteSize() > MAX_BATCH):
            sent += len(page.directories)
            page.next_page_token = str(sent)
            yield page
            page, size = pb.GetTreeResponse(), 0
        page.directories.append(directory)
        size += directory.ByteSize()
    yield page


def directories(shelf: Shelf, namespace: str, function: Function, root: str) -> Iterator[pb.Directory]:
    """A directory and all below it that are there, each once, the upper ones first. Raises Refused."""
    seen = {root}
    level = [root]
    while level:
        below: dict[str, None] = {}
        for start in range(0, len(level), _TOGETHER):
            names = [name for name in level[start : start + _TOGETHER] if size_of(name) <= MAX_BATCH]
            data = shelf.read_many(shelf.find(namespace, function, names))
            for name in names:
                if name in data:
                    directory = parse_directory(name, data[name])
                    yield directory
                    below.update(dict.fromkeys(name_of(each.digest) for each in directory.directories))
        level = [name for name in below if name not in seen]
        seen.update(level)
        if len(seen) > MAX_TREE:
            raise exhausted(f"the tree has more than {MAX_TREE} directories")


def parse_directory(name: str, data: bytes) -> pb.Directory:
    """Raises Refused."""
    try:
        return pb.Directory.FromString(data)
    except DecodeError:
        raise invalid(f"the blob {name} is no directory") from None
