"""Key checks: whether the key of an action is that of what its body says and of the layers that came with it.

Else whoever may have actions executed could have a worker sign, and the server keep, the result of any command as that
of another one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.entry import DIRECTORY, FIFO, FILE, SYMLINK, Entry
from cache.errors import CorruptBlob
from worker.context_digest import digest_as_context
from worker.operation import key_form
from worker.run_key import mounted_key, run_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.result import Layer
    from worker.fleet.action_body import Body, Place
    from worker.library import LayerLibrary

_MODE = 0o755
"""Of the top directory of a context, which its digest leaves out."""
_AMBIGUOUS = re.compile(r"\n[0-9a-f]{64}")
"""In a name, where the digest of a context's directory cannot tell one file from two."""


def check_key(body: Body, inputs: Sequence[tuple[Layer, ...]], library: LayerLibrary) -> None:
    """inputs: the layers of the body, in the store, with contents that are theirs.

    Raises CorruptBlob if the key, or the digest of something mounted, is another one.
    """
    run, action = body.run, body.action
    places = {place.mount: place for place in body.places}
    sources = []
    for number, mount in enumerate(run.mounts):
        if mount.input is None:
            continue
        place = places.get(number)
        if place is None:
            sources.append(mounted_key(run, mount.input, library.tree(inputs[mount.input])))
        else:
            _check_place(place, inputs[place.input][0], library)
            sources.append(place.digest)
    contents = [layer.content for layer in inputs[0]]
    if run_key(key_form(run), action.platform, contents, sources, body.marks) != action.key:
        raise CorruptBlob("its key is not that of what it says")


def _check_place(place: Place, layer: Layer, library: LayerLibrary) -> None:
    """That a layer holds what has this digest, and nothing that the digest does not count."""
    index = library.index(layer)
    plain = all(map(_is_of_context, index.entries)) and not index.implied and layer.content != layer.diff_id
    tree = library.tree((layer,))
    found = tree.lookup(place.source)
    # A directory is the top of its layer: of any other one the digest would leave out the mode.
    if not plain or found is None or (found[0].kind == DIRECTORY) != (place.source == ""):
        raise CorruptBlob("the layer of a mount holds what no context has")
    # Of a context by the first way; a file that was fetched is one by the second.
    if digest_as_context(tree, place.source) != place.digest != tree.digest(place.source):
        raise CorruptBlob("the layer of a mount holds something else than its key counts")


def _is_of_context(entry: Entry) -> bool:
    if entry.path == "" and entry.mode != _MODE:
        return False
    usual = entry.kind in (FILE, DIRECTORY, SYMLINK, FIFO) and not (entry.uid or entry.gid or entry.xattrs)
    return usual and not _AMBIGUOUS.search(entry.path)
