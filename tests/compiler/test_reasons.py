"""Why a step will run, said from what its key was made of then and now."""

from __future__ import annotations

from typing import Any

import pytest

from cache import encoding
from cache.entry import FILE
from compiler.explain import describe, explain
from compiler.operation_diff import differences
from compiler.preimage import MASK, InputNote, Preimage
from compiler.reasons import Reason
from compiler.text_diff import cut_pair, word_diff
from worker.file_list import Listed, compare
from worker.operation import Copy, Inline, MakeDirectory, Mount, Pattern, Run, Script, key_form

RUN = Run(("sh", "-c", "make all"), (("A", "1"), ("B", "2")), "/", "", "default", "host")
COPY = Copy((Pattern(1, "a"),), "/b")
IMAGE = {"is": "Image", "name": "alpine:3.19", "digest": "sha256:aaa"}


def made(operation: Any = RUN, recipe: str = "r", inputs: tuple[InputNote, ...] = (), **more: Any) -> Preimage:
    """As a record gives it back."""
    found = {"operation": operation if isinstance(operation, dict) else key_form(operation), "platform": "linux/amd64"}
    parts = encoding.parse(encoding.canonical({**found, "rootfs": "base", "sources": ["s"], **more}))
    notes = inputs or (InputNote("s.1", "run", "RUN below", parts["rootfs"]),)
    return Preimage(recipe, parts, notes, "RUN title", "own")


class Known:
    """A world with these preimages and file lists."""

    def __init__(self, *preimages: Preimage, files: dict[str, list[Listed]] | None = None) -> None:
        self._preimages = {each.recipe: each for each in preimages}
        self._files = files or {}

    def earlier(self, recipe: str) -> Preimage | None:
        return self._preimages.get(recipe)

    def files(self, source: str) -> list[Listed] | None:
        return self._files.get(source)


@pytest.mark.parametrize(
    ("now", "reason", "text"),
    [
        (made(platform="linux/arm64"), Reason.PLATFORM_CHANGED, "was linux/amd64, is linux/arm64"),
        (made(COPY), Reason.OPERATION_CHANGED, "another instruction stood here: RUN, now COPY or ADD"),
        (made(RUN._replace(argv=("sh", "-c", "make -j all"))), Reason.COMMAND_CHANGED, "make [now with -j] all"),
        (made(RUN._replace(argv=("y",), env=())), Reason.COMMAND_CHANGED, "the command changed"),
        (made(RUN._replace(env=(("A", "1"), ("B", "3")))), Reason.VARIABLES_CHANGED, "the value of B changed: 2 → 3"),
        (made(RUN._replace(env=(("A", "1"),))), Reason.VARIABLES_CHANGED, "the variable B is gone; it was 2"),
        (made(RUN._replace(env=(("A", "1"), ("B", "2"), ("C", "")))), Reason.VARIABLES_CHANGED, "C is new: empty"),
        (made(RUN._replace(env=(("C", "1"), ("B", "2")))), Reason.VARIABLES_CHANGED, "variables changed: A, C"),
        (made(RUN._replace(cwd="/x")), Reason.OPERATION_CHANGED, "the working directory changed: / → /x"),
        (made(sources=["t"]), Reason.FILES_CHANGED, "files"),
        (made(rootfs="q"), Reason.BASE_CHANGED, "builds on changed"),
        (made(secrets=[["token", "m"]]), Reason.SECRET_CHANGED, "the secret token"),
        (made(), Reason.GONE, "no longer in the store"),
    ],
)
def test_the_difference_is_named(now: Preimage, reason: Reason, text: str) -> None:
    explained = explain(now, made(), Known())
    assert explained.reason is reason
    assert text in explained.text


def test_a_step_that_was_never_built() -> None:
    assert explain(made(), None, Known()).reason is Reason.NEVER_BUILT


def test_modes_and_owners() -> None:
    explained = explain(made(COPY._replace(mode="755")), made(COPY._replace(mode="644")), Known())
    assert (explained.reason, explained.text) == (Reason.MODE_CHANGED, "--chmod was 644, is 755")
    explained = explain(made(COPY._replace(owner="app")), made(COPY), Known())
    assert explained.text == "the owner was nothing, is app"


def test_secret_values_are_not_shown() -> None:
    old = made(RUN._replace(env=(("API_TOKEN", f"{MASK}aa"),)))
    explained = explain(made(RUN._replace(env=(("API_TOKEN", f"{MASK}bb"),))), old, Known())
    assert explained.text == "the value of API_TOKEN changed (it is secret, so it is not shown)"
    assert "aa" not in repr(explained)
    assert "bb" not in repr(explained)


def test_files_are_named_with_their_sizes() -> None:
    old = [Listed("a", FILE, 0o644, 10, "x"), Listed("gone", FILE, 0o644, 5, "y"), Listed("m", FILE, 0o644, 1, "z")]
    new = [Listed("a", FILE, 0o644, 2048, "q"), Listed("new", FILE, 0o644, 7, "w"), Listed("m", FILE, 0o755, 1, "z")]
    known = Known(files={"s": old, "t": new})
    explained = explain(made(sources=["t"]), made(), known)
    assert explained.reason is Reason.FILES_CHANGED
    assert explained.text == "a changed; new is new; gone is gone; m changed mode"
    expected = {"+ new (7 B)", "- gone (was 5 B)", "~ a (10 B → 2.0 KiB)", "~ m (mode 644 → 755)"}
    assert set(explained.details) == expected


def test_many_files_are_counted_in_the_sentence() -> None:
    explained = describe(compare([], [Listed(f"f{n:03}", FILE, 0o644, 1, "x") for n in range(500)]))
    assert explained.text == "f000, f001, f002 and 497 more are new"
    assert explained.details[-1] == "… and 300 more"


def test_only_a_mode() -> None:
    one = Listed("a", FILE, 0o644, 1, "x")
    assert describe(compare([one], [one._replace(mode=0o755)])).reason is Reason.MODE_CHANGED


def test_a_base_image_is_named_with_old_and_new_digest() -> None:
    old_image, new_image = made(IMAGE, "old"), made({**IMAGE, "name": "alpine:3.20", "digest": "sha256:bbb"}, "new")
    old = made(rootfs="old", inputs=(InputNote("image:a", "image", "alpine:3.19", "old"),))
    new = made(rootfs="new", inputs=(InputNote("image:b", "image", "alpine:3.20", "new"),))
    explained = explain(new, old, Known(old_image, new_image))
    assert explained.reason is Reason.BASE_IMAGE_CHANGED
    assert explained.text == "the base image changed: alpine:3.19 (sha256:aaa) → alpine:3.20 (sha256:bbb)"


def test_the_cause_is_found_below() -> None:
    """RUN on RUN on COPY: what changed is a file of the COPY."""
    files = {"s": [Listed("a", FILE, 0o644, 1, "x")], "t": [Listed("a", FILE, 0o644, 2, "y")]}
    below = [made(COPY, "c1"), made(COPY, "c2", sources=["t"])]
    middle = [made(RUN, "m1", rootfs="c1"), made(RUN, "m2", rootfs="c2")]
    explained = explain(made(rootfs="m2"), made(rootfs="m1"), Known(*below, *middle, files=files))
    assert explained.reason is Reason.BASE_CHANGED
    assert "a changed (1 B → 2 B)" in explained.text
    assert explained.details == ("~ a (1 B → 2 B)",)


def test_a_step_where_an_image_was() -> None:
    image = Preimage("image", made(IMAGE).parts, (), "alpine:3.19", "")
    text = explain(made(rootfs="run"), made(rootfs="image"), Known(image, made(RUN, "run"))).text
    assert text == "what it builds on changed: «alpine:3.19» → «RUN title»"
    assert "→" in explain(made(rootfs="image"), made(rootfs="run"), Known(image, made(RUN, "run"))).text


def test_a_line_that_was_put_between_and_one_that_went() -> None:
    lower, upper = made(RUN, "low"), made(RUN._replace(argv=("new",)), "high", rootfs="low")
    between = explain(made(rootfs="high"), made(rootfs="low"), Known(lower, upper))
    assert "it is new here" in between.text
    assert "is gone" in explain(made(rootfs="low"), made(rootfs="high"), Known(lower, upper)).text


def test_a_record_of_an_older_program_that_knew_fewer_fields() -> None:
    before = made()
    del before.operation["ulimits"]
    assert explain(made(), before, Known()).reason is Reason.OPERATION_CHANGED


def test_words_that_differ_stand_in_what_surrounds_them() -> None:
    assert word_diff("a b c d e f g", "a b c d X f g", 60) == "a b c d [e → X] f g"
    assert word_diff("x", "x y", 60) == "x [now with y]"


def said(old: Any, new: Any) -> list[str]:
    """The sentence and the details of what is different, of operations as a record gives them back."""
    forms = [encoding.parse(encoding.canonical(key_form(each))) for each in (old, new)]
    (found,) = differences(*forms)
    return [found.text, *found.details]


SH = ("/bin/sh", "-c")
LONG = "x" * 500


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((*SH, "env"), ("/bin/ash", "-c", "env"), ["SHELL changed: /bin/sh -c → /bin/ash -c"]),
        ((*SH, "env"), ("/bin/sh", "-e", "-c", "env"), ["SHELL changed: /bin/sh -c → /bin/sh -e -c"]),
        (
            (*SH, "echo a"), ("/bin/ash", "-c", "echo b"),
            ["the command changed: [/bin/sh → /bin/ash] -c echo [a → b]", "- /bin/sh -c 'echo a'", "+ /bin/ash -c 'echo b'"],
        ),
        (
            (*SH, "echo a b"), (*SH, "echo", "a b"),
            [
                "the words of the command are divided otherwise: /bin/sh -c ['echo a b' → echo 'a b']",
                "- /bin/sh -c 'echo a b'", "+ /bin/sh -c echo 'a b'",
            ],
        ),
        ((*SH, "echo 'a b'"), (*SH, "echo 'a  b'"), ["only blanks in the command changed", '- "echo \'a b\'"', '+ "echo \'a  b\'"']),
        (("head", "-c", "5"), ("tail", "-c", "5"), ["the command changed: [head → tail] -c 5", "- head -c 5", "+ tail -c 5"]),
        (
            (*SH, f"{LONG} a"), (*SH, f"{LONG} b"),
            [f"the command changed: {'x' * 30}…{'x' * 30} [a → b]", f"- …{'x' * 132} a", f"+ …{'x' * 132} b"],
        ),
        (
            (*SH, f"echo {LONG}1"), (*SH, f"echo {LONG}2"),
            [f"the command changed: echo […{'x' * 20}1 → …{'x' * 20}2]", f"- …{'x' * 133}1", f"+ …{'x' * 133}2"],
        ),
    ],
)  # fmt: skip
def test_what_a_command_was_and_is(old: tuple[str, ...], new: tuple[str, ...], expected: list[str]) -> None:
    assert said(RUN._replace(argv=old), RUN._replace(argv=new)) == expected


def test_a_heredoc_that_runs_is_shown_and_not_where_it_is_mounted() -> None:
    old = RUN._replace(argv=("/dev/pipes/EOF",), scripts=(Script("EOF", "#!/bin/sh\necho a\n"),))
    new = old._replace(scripts=(Script("EOF", "#!/bin/sh\necho b\n"),))
    assert said(old, new) == [
        "the command changed: <<EOF #!/bin/sh echo [a → b]", "- <<EOF #!/bin/sh echo a", "+ <<EOF #!/bin/sh echo b",
    ]  # fmt: skip
    blank = old._replace(scripts=(Script("EOF", "#!/bin/sh\necho  a\n"),))
    assert said(old, blank)[0] == "only blanks in the command changed"
    assert "pipes" not in repr(said(old, RUN))


CACHE = Mount("cache", "/c", None, id="//c", mode=0o755)
BIND = Mount("bind", "/m", 1, "conf", read_only=True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((CACHE,), (CACHE._replace(id="/q", mode=0o700),), ["- type=cache,target=/c", "+ type=cache,id=q,target=/c,mode=700"]),
        ((CACHE._replace(sharing="locked"),), (), ["- type=cache,target=/c,sharing=locked"]),
        ((CACHE._replace(read_only=True),), (CACHE,), ["- type=cache,target=/c,ro", "+ type=cache,target=/c"]),
        ((BIND,), (BIND._replace(read_only=False, input=2),), ["- type=bind,source=conf,target=/m", "+ type=bind,source=conf,target=/m,rw"]),
        (
            (), (Mount("secret", "/run/secrets/t", read_only=True, id="t", mode=0o400, required=True),),
            ["+ type=secret,id=t,required"],
        ),
        ((), (Mount("ssh", "/run/buildkit/ssh_agent.0", read_only=True, id="default", mode=0o600),), ["+ type=ssh"]),
        ((), (Mount("tmpfs", "/t", size=64 << 20),), ["+ type=tmpfs,target=/t,size=64m"]),
    ],
)  # fmt: skip
def test_mounts_are_told_as_they_are_written(old: tuple[Mount, ...], new: tuple[Mount, ...], expected: list[str]) -> None:
    assert said(RUN._replace(mounts=old), RUN._replace(mounts=new)) == ["the mounts changed", *expected]


def test_mounts_of_other_places_or_in_another_order() -> None:
    other = BIND._replace(target="/o")
    moved = said(RUN._replace(mounts=(BIND,)), RUN._replace(mounts=(BIND._replace(input=2),)))
    assert moved == ["the mounts changed: what they are made of is another"]
    assert "another order" in said(RUN._replace(mounts=(BIND, other)), RUN._replace(mounts=(other, BIND)))[0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (COPY, COPY._replace(link=True), ["--link is given now"]),
        (COPY._replace(parents=True), COPY, ["--parents is not given any more"]),
        (COPY, COPY._replace(from_context=False), ["--from is given now"]),
        (RUN, RUN._replace(shm_size=1 << 30), ["--shm-size changed: 64m → 1g"]),
        (RUN, RUN._replace(hosts=("1.2.3.4\ta",)), ["--add-host changed: nothing → a:1.2.3.4"]),
        (RUN, RUN._replace(ulimits=(("nofile", 1, 2), ("core", 0, 0))), ["--ulimit changed: nothing → nofile=1:2, core=0"]),
        (RUN, RUN._replace(insecure=True), ["--security changed: sandbox → insecure"]),
        (
            RUN, RUN._replace(cwd=f"/{LONG}"),
            [f"the working directory changed: / → /{'x' * 58}…", "- /", f"+ /{'x' * 398}…"],
        ),
        (
            MakeDirectory(f"/{LONG}/a"), MakeDirectory(f"/{LONG}/b"),
            [f"the directory changed: …{'x' * 19}/a → …{'x' * 19}/b", f"- …{'x' * 132}/a", f"+ …{'x' * 132}/b"],
        ),
        (
            RUN._replace(env=(("X", "1"), ("Y", "2"))), RUN._replace(env=(("X", "1"), ("Z", "3"))),
            ["variables changed: Y, Z", "the variable Y is gone; it was 2", "the variable Z is new: 3"],
        ),
        (
            RUN._replace(env=(("P", f"{LONG}1"),)), RUN._replace(env=(("P", f"{LONG}2"),)),
            [
                f"the value of P changed: …{'x' * 20}1 → …{'x' * 20}2",
                f"the value of P changed: …{'x' * 133}1 → …{'x' * 133}2",
            ],
        ),
        (RUN, RUN._replace(env=RUN.env[::-1]), ["the variables are the same, in another order", "- A B", "+ B A"]),
        (
            COPY._replace(sources=(Inline("EOF", "a\nb\n"),)), COPY._replace(sources=(Inline("EOF", "a\nc\n"),)),
            ["the text of <<EOF changed: a [b → c]", "- a b", "+ a c"],
        ),
        (
            COPY._replace(sources=(Inline("EOF", "a b"),)), COPY._replace(sources=(Inline("EOF", "a  b"),)),
            ["only blanks in the text of <<EOF changed", "- 'a b'", "+ 'a  b'"],
        ),
        (
            COPY._replace(sources=(Pattern(1, "a"), Pattern(1, "b"))), COPY._replace(sources=(Pattern(1, "b"), Pattern(1, "a"))),
            ["the list of sources changed: another order, a, b → b, a"],
        ),
        (COPY._replace(sources=(Pattern(1, "a"),)), COPY._replace(sources=(Pattern(1, "c"),)), ["the list of sources changed", "- a", "+ c"]),
        (COPY._replace(sources=(Pattern(1, "a", True),)), COPY, ["archives are not unpacked any more"]),
    ],
)  # fmt: skip
def test_options_are_told_as_they_are_written(old: Any, new: Any, expected: list[str]) -> None:
    assert said(old, new) == expected


def test_what_two_texts_begin_with_is_left_out_where_it_hides_the_difference() -> None:
    assert cut_pair("abc", "abd", 10) == ("abc", "abd")
    assert cut_pair("a" * 20, "a" * 20 + "b", 12) == ("…aaaa", "…aaaab")
    assert cut_pair("b" + "a" * 20, "c" + "a" * 20, 6) == ("baaaa…", "caaaa…")
    many = [str(number) for number in range(2000)]
    assert word_diff(" ".join(many), " ".join(["x", *many[1:-1], "y"]), 60).startswith("[0 1 2 3 4 5 6")


def test_the_words_are_stable() -> None:
    """They stand in the JSON of `plan`."""
    assert {reason.value for reason in Reason} >= {
        "same-recipe", "same-content", "source", "not-needed", "never-built", "no-cache", "command-changed", "variables-changed",
        "operation-changed", "files-changed", "base-changed", "platform-changed", "gone", "input-open", "source-changed",
        "base-image-changed", "mode-changed", "secret-changed", "expired", "evicted",
    }  # fmt: skip


def test_an_image_without_a_digest_is_told_by_its_layers() -> None:
    def image(*layers: str) -> dict[str, Any]:
        return {"is": "Image", "name": "own:1", "digest": "", "layers": [f"sha256:{layer * 64}" for layer in layers]}

    (found,) = differences(image("a", "b"), image("a", "c", "d"))
    a, b, c = (f"sha256:{layer * 12}" for layer in "abc")
    assert found.text == f"the base image changed: own:1 (2 → 3 layers, layer 2: {b} → {c})"
    assert found.details[0] == "the first layer is the same"
    assert [line[:9] for line in found.details[1:]] == ["- layer s", "+ layer s", "+ layer s"]
    (lower,) = differences(image("a", "b", "c"), image("a", "d", "c"))
    assert lower.text == f"the base image changed: own:1 (layer 2 of 3: {b} → sha256:{'d' * 12})"
    (more,) = differences(image("a"), image("a", "b"))
    assert more.text.endswith("own:1 (1 → 2 layers, the lowest is the same)")
    (older,) = differences({"is": "Image", "name": "own:1", "digest": ""}, image("a"))
    assert older.text.endswith(f"own:1 → own:1 (1 layer {a})"), "records of before have no layers"
