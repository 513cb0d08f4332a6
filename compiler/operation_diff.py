"""OperationDiff: what is different between two operations, field by field, in words for people."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from compiler.command_diff import command_change, text_change
from compiler.option_words import items, switched, words
from compiler.preimage import MASK
from compiler.reasons import Explained, Reason
from compiler.text_diff import SHOWN, SHOWN_DETAIL, arrow, both, cut, cut_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cut", "differences"]
_NAMES = {
    "cwd": "the working directory", "user": "USER", "owner": "the owner", "mode": "--chmod", "network": "the network",
    "hostname": "the host's name", "hosts": "--add-host", "shm_size": "--shm-size", "ulimits": "--ulimit",
    "insecure": "--security", "destination": "the destination", "sources": "the list of sources",
    "exclude": "--exclude", "link": "--link", "parents": "--parents", "path": "the directory", "mounts": "the mounts",
    "scripts": "the script", "from_context": "where it copies from",
}  # fmt: skip
_DIGEST = len("sha256:") + 12
"""Characters of a digest in a sentence."""
_WORDS = {"Run": "RUN", "Copy": "COPY or ADD", "MakeDirectory": "WORKDIR", "Image": "an image"}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Explained]:
    """One Explained a cause, the weightiest first; [] if they are equal. old, new: as `key_form` has them."""
    if old.get("is") != new.get("is"):
        kinds = [_WORDS.get(str(each.get("is")), "another instruction") for each in (old, new)]
        text = f"another instruction stood here: {kinds[0]}, now {kinds[1]}"
        return [Explained(Reason.OPERATION_CHANGED, text)]
    if new.get("is") == "Image":
        return _image(old, new) if old != new else []
    fields = [name for name in new if new[name] != old.get(name)]
    found = []
    if "argv" in fields or "scripts" in fields:
        found.append(command_change(old, new))
    if "env" in fields:
        found.append(_variables(dict(old["env"]), dict(new["env"])))
    found += [
        Explained(Reason.MODE_CHANGED, _was_is(_NAMES[name], words(name, old.get(name)), words(name, new[name])))
        for name in ("owner", "mode")
        if name in fields
    ]
    for name in fields:
        if name not in ("argv", "scripts", "env", "owner", "mode"):
            found.append(_other(name, old.get(name), new[name]))
    return found


def _was_is(called: str, old: str, new: str) -> str:
    was, is_ = cut_pair(old, new, SHOWN)
    return f"{called} was {was or 'nothing'}, is {is_ or 'nothing'}"


def _image(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Explained]:
    def text(image: Mapping[str, Any]) -> str:
        name, digest, layers = str(image.get("name")), str(image.get("digest", "")), image.get("layers", ())
        if digest or not layers:
            return f"{name} ({digest[:_DIGEST]})" if digest else name
        # An image of this store's own has no manifest: its layers tell it apart.
        count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers, the last"
        return f"{name} ({count} {str(layers[-1])[:_DIGEST]})"

    named = [f"{each.get('name')} {each.get('digest')}".rstrip() for each in (old, new)]
    details = [f"- {named[0]}", f"+ {named[1]}"] if named[0] != named[1] else []
    was, is_ = list(old.get("layers", ())), list(new.get("layers", ()))
    if not (old.get("digest") and new.get("digest")):
        details += _layers(was, is_)
    change = f"{text(old)} → {text(new)}"
    if named[0] == named[1] and was and is_:
        change = f"{named[0]} ({_first_layer(was, is_)})"
    return [Explained(Reason.BASE_IMAGE_CHANGED, f"the base image changed: {change}", tuple(details))]


def _first_layer(old: list[str], new: list[str]) -> str:
    """The lowest layer of an image that is another than before."""
    count = f"{len(old)} → {len(new)} layers"
    same = _shared(old, new)
    if same == min(len(old), len(new)):
        return f"{count}, the lowest {same} are the same" if same > 1 else f"{count}, the lowest is the same"
    layer = f"{old[same][:_DIGEST]} → {new[same][:_DIGEST]}"
    return f"layer {same + 1} of {len(new)}: {layer}" if len(old) == len(new) else f"{count}, layer {same + 1}: {layer}"


def _shared(old: list[str], new: list[str]) -> int:
    """How many layers two images have in common, from the lowest up."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _layers(old: list[str], new: list[str]) -> list[str]:
    """What is different above the layers that two images share; nothing if those of one are not known."""
    if not old or not new:
        return []
    same = _shared(old, new)
    shared = "the first layer is the same" if same == 1 else f"the first {same} layers are the same"
    lines = [f"- layer {each}" for each in old[same:]] + [f"+ layer {each}" for each in new[same:]]
    return [shared, *lines] if same else lines


def _variables(old: Mapping[str, str], new: Mapping[str, str]) -> Explained:
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    lines = [_variable(name, old.get(name), new.get(name), SHOWN_DETAIL) for name in names]
    shown = f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
    if not names:
        text = "the variables are the same, in another order"
        lines = [*both(" ".join(old), " ".join(new))]
    elif len(names) == 1:
        text = _variable(names[0], old.get(names[0]), new.get(names[0]), SHOWN)
        lines = lines if text not in lines else []
    elif all(name in old and name in new for name in names):
        text = f"the values of {shown} changed"
    else:
        text = f"variables changed: {shown}"
    return Explained(Reason.VARIABLES_CHANGED, text, tuple(lines))


def _variable(name: str, old: str | None, new: str | None, width: int) -> str:
    if any(value is not None and value.startswith(MASK) for value in (old, new)):
        return f"the value of {name} changed (it is secret, so it is not shown)"
    if old is None:
        return f"the variable {name} is new: {cut(new or '', width) or 'empty'}"
    if new is None:
        return f"the variable {name} is gone; it was {cut(old, width) or 'empty'}"
    was, is_ = cut_pair(old, new, width)
    return f"the value of {name} changed: {was or 'empty'} → {is_ or 'empty'}"


def _other(name: str, old: Any, new: Any) -> Explained:
    called = _NAMES.get(name, name)
    if old is None:
        text = f"{called} was not recorded before: an older version of the program built it"
        return Explained(Reason.OPERATION_CHANGED, text)
    if name == "sources" and isinstance(old, list):
        return _sources(old, new)
    if name == "mounts" and isinstance(old, list):
        return _listed(name, old, new, "what they are made of is another")
    if switch := switched(name, old, new):
        return Explained(Reason.OPERATION_CHANGED, switch)
    return _from_to(f"{called} changed:", words(name, old), words(name, new))


def _from_to(what: str, old: str, new: str) -> Explained:
    """In full in the details where the sentence has not the room."""
    details = both(old, new) if max(len(old), len(new)) > SHOWN else ()
    return Explained(Reason.OPERATION_CHANGED, f"{what} {arrow(old, new)}", details)


def _sources(old: list[Any], new: list[Any]) -> Explained:
    if items("sources", old) == items("sources", new):
        pairs = [(was, is_) for was, is_ in zip(old, new, strict=True) if was.get("text") != is_.get("text")]
        heredocs = [text_change(str(is_.get("name")), str(was.get("text")), str(is_.get("text"))) for was, is_ in pairs]
        if len(heredocs) == 1:
            return heredocs[0]
        if heredocs:
            text = f"the texts of {len(heredocs)} heredocs changed"
            return Explained(Reason.OPERATION_CHANGED, text, tuple(each.text for each in heredocs))
        if any(each.get("extract") for each in old) != any(each.get("extract") for each in new):
            unpacked = any(each.get("extract") for each in new)
            text = f"archives are {'unpacked now' if unpacked else 'not unpacked any more'}"
            return Explained(Reason.OPERATION_CHANGED, text)
    return _listed("sources", old, new, "they come from elsewhere")


def _listed(name: str, old: list[Any], new: list[Any], otherwise: str) -> Explained:
    """Of a list, what is gone and what is new. otherwise: what to say if that is nothing."""
    was, is_ = items(name, old), items(name, new)
    text = f"{_NAMES[name]} changed"
    gone, come = [each for each in was if each not in is_], [each for each in is_ if each not in was]
    if len(gone) == len(come) == 1:
        return Explained(Reason.OPERATION_CHANGED, text, both(gone[0], come[0]))
    if gone or come:
        lines = [f"- {cut(each, SHOWN_DETAIL)}" for each in gone] + [f"+ {cut(each, SHOWN_DETAIL)}" for each in come]
        return Explained(Reason.OPERATION_CHANGED, text, tuple(lines))
    if was != is_:
        return _from_to(f"{text}: another order,", ", ".join(was), ", ".join(is_))
    return Explained(Reason.OPERATION_CHANGED, f"{text}: {otherwise}")
