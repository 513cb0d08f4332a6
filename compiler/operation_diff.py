"""OperationDiff: what is different between two operations, field by field, in words for people."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from compiler.preimage import MASK
from compiler.reasons import Explained, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = 60
"""Characters of a value in a sentence; the details have more."""
SHOWN_DETAIL = 400
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
        found.append(_command(old, new))
    if "env" in fields:
        found.append(_variables(dict(old["env"]), dict(new["env"])))
    found += [
        Explained(Reason.MODE_CHANGED, f"{_NAMES[name]} was {_value(old.get(name))}, is {_value(new[name])}")
        for name in ("owner", "mode")
        if name in fields
    ]
    for name in fields:
        if name not in ("argv", "scripts", "env", "owner", "mode"):
            found.append(_other(name, old.get(name), new[name]))
    return found


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


def _command(old: Mapping[str, Any], new: Mapping[str, Any]) -> Explained:
    before, after = _command_text(old), _command_text(new)
    return Explained(
        Reason.COMMAND_CHANGED,
        f"the command changed: {word_diff(before, after, SHOWN)}",
        (f"- {cut(before, SHOWN_DETAIL)}", f"+ {cut(after, SHOWN_DETAIL)}"),
    )


def _command_text(operation: Mapping[str, Any]) -> str:
    argv = [str(word) for word in operation.get("argv", ())]
    shell = len(argv) > 2 and argv[1] == "-c"
    text = argv[-1] if shell else " ".join(argv)
    for script in operation.get("scripts", ()):
        text += "\n" + str(script.get("body", ""))
    return " ".join(text.split())


def word_diff(old: str, new: str, width: int) -> str:
    """The words that differ, with a word or two around: `make [-j2 → -j4] all`."""
    import difflib  # 4 ms that only this needs

    before, after = old.split(), new.split()
    if len(before) * len(after) > 1_000_000:
        return "the text is too long to compare"
    pieces = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = " ".join(before[i1:i2]), " ".join(after[j1:j2])
        if tag == "equal":
            words = before[i1:i2]
            pieces.append(" ".join(words) if len(words) <= 4 else f"{' '.join(words[:1])} … {' '.join(words[-2:])}")
        elif tag == "replace":
            pieces.append(f"[{cut(gone, width)} → {cut(come, width)}]")
        elif tag == "delete":
            pieces.append(f"[without {cut(gone, width)}]")
        else:
            pieces.append(f"[now with {cut(come, width)}]")
    return cut(" ".join(pieces), 3 * width)


def _variables(old: Mapping[str, str], new: Mapping[str, str]) -> Explained:
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    lines = [_variable(name, old.get(name), new.get(name), SHOWN_DETAIL) for name in names]
    if len(names) == 1:
        text = _variable(names[0], old.get(names[0]), new.get(names[0]), SHOWN)
        lines = lines if text not in lines else []
    else:
        text = f"the values of {', '.join(names[:5])}{' and others' if len(names) > 5 else ''} changed"
    return Explained(Reason.VARIABLES_CHANGED, text, tuple(lines))


def _variable(name: str, old: str | None, new: str | None, width: int) -> str:
    if any(value is not None and value.startswith(MASK) for value in (old, new)):
        return f"the value of {name} changed (it is secret, so it is not shown)"
    if old is None:
        return f"the variable {name} is new: {cut(new or '', width) or 'empty'}"
    if new is None:
        return f"the variable {name} is gone; it was {cut(old, width) or 'empty'}"
    return f"the value of {name} changed: {cut(old, width) or 'empty'} → {cut(new, width) or 'empty'}"


def _other(name: str, old: Any, new: Any) -> Explained:
    called = _NAMES.get(name, name)
    if name in ("mounts", "sources") and isinstance(old, list):
        gone = [each for each in old if each not in new]
        come = [each for each in new if each not in old]
        lines = [f"- {_value(each)}" for each in gone] + [f"+ {_value(each)}" for each in come]
        details = tuple(cut(line, SHOWN_DETAIL) for line in lines)
        return Explained(Reason.OPERATION_CHANGED, f"{called} changed", details)
    return Explained(Reason.OPERATION_CHANGED, f"{called} changed: {_value(old)} → {_value(new)}")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        said = {name: item for name, item in value.items() if name != "is" and item not in ("", 0, False, None)}
        return " ".join(f"{name}={_value(item)}" for name, item in said.items())
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "nothing"
    if value in ("", None):
        return "nothing"
    return cut(str(value), SHOWN)


def cut(text: str, width: int) -> str:
    """At most so many characters, the last one an ellipsis if some had to go."""
    return text if len(text) <= width else text[: width - 1] + "…"
