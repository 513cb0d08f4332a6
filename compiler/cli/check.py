"""`buildgraph check`, `build --check` and `build --call`: what can be said of a Dockerfile without building it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cache.errors import StoreProblem, UsageError
from compiler.checks.build_args import unconsumed
from compiler.checks.control import ALL, file_control
from compiler.checks.during_build import image_at_hand
from compiler.checks.engine import run_checks
from compiler.checks.file import CheckedFile
from compiler.checks.ignore_rules import ignore_rules
from compiler.cli.options import Parser, add_build_options, read_request
from compiler.cli.streams import say
from compiler.dockerfile.errors import DockerfileError, did_you_mean
from compiler.dockerfile.parser import parse_dockerfile
from compiler.progress.text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.image_config import ImageConfig
    from cache.lmdb_store import LmdbStore
    from cache.platform import Platform
    from compiler.checks.control import Control
    from compiler.checks.rule import Reported
    from compiler.cli.options import Request
    from compiler.dockerfile.source import Source

FORMATS = ("text", "json", "sarif")
METHODS = ("check", "outline", "targets")
FOUND = 1
"""Exit code where something was found, as `docker build --check` has it."""


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, FOUND, or an exception: for a Dockerfile that cannot be parsed, after JSON or SARIF that says so."""
    parser = Parser(prog="buildgraph check", description="Check a Dockerfile without building it.")
    parser.add_argument("context", nargs="?", metavar="CONTEXT", help="directory; - for a Dockerfile on standard input")
    parser.add_argument("-f", "--file", help="Dockerfile (default: CONTEXT/Dockerfile); needs no CONTEXT")
    parser.add_argument("--target", default="", help="check what this stage needs (default: all stages)")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="value for an ARG")
    parser.add_argument("--build-context", action="append", default=[], metavar="NAME=VALUE", help="a further context")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="platform of the image")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store, to look base images up")
    parser.add_argument("--strict", action="store_true", help="check buildgraph's own rules, too")
    parser.add_argument("--format", default="text", choices=FORMATS, help="for people or for programs")
    parsed = parser.parse_args(arguments)
    # Read by the build's own parser, so that both mean the same.
    words = [parsed.context or "."]
    for option in ("file", "target", "platform", "store"):
        value = getattr(parsed, option)
        words += [f"--{option}={value}"] if value else []
    words += [f"--build-arg={value}" for value in parsed.build_arg]
    words += [f"--build-context={value}" for value in parsed.build_context]
    build = Parser(prog="buildgraph check")
    add_build_options(build)
    request = read_request(build.parse_args(words))
    if parsed.context is None and parsed.file is not None:
        # Whose context this is, nobody said.
        request = request._replace(definition=request.definition._replace(context=None))
    return _check(request, parsed.format, strict=parsed.strict)


def call(method: str, request: Request) -> int:
    """`build --call=METHOD[,format=json]`. Exit code as `run`. Raises UsageError for another method."""
    name, _, option = method.partition(",")
    formats = {"": "text", "format=text": "text", "format=json": "json", "format=sarif": "sarif"}
    if name == "lint":
        name = "check"  # docker's older name
    if name not in METHODS:
        raise UsageError(
            f"--call={name}: unknown method{did_you_mean(name, METHODS)}", hint="one of check, outline and targets"
        )
    if option not in formats or (option == "format=sarif" and name != "check"):
        raise UsageError(f"--call={method}: {option} is not understood", hint="write --call=METHOD,format=json")
    if name == "check":
        return _check(request, formats[option], strict=False)
    from compiler.checks import outline, targets

    view = outline if name == "outline" else targets
    with _Images(request.store) as images:
        file = _open(request, images)
        json = formats[option] == "json"
        text = view.render_json(file) if json else printable_lines(view.render_text(file))
    say(text)
    return 0


def _check(request: Request, form: str, *, strict: bool) -> int:
    source = _source(request)
    options = request.variants[0]
    try:
        with _Images(request.store) as images:
            file = _open(request, images)
            control = file_control(file.dockerfile, dict(options.build_args))
            findings = run_checks(file, control, strict=strict)
    except DockerfileError as error:
        if form != "text":
            say(_render(form, source, [], error))
        raise
    say(_render(form, source, findings, None))
    for warning in (unconsumed(file, options), _unknown_rules(control)):
        if warning:
            sys.stderr.write(f"WARNING: {warning}\n")
    return FOUND if findings else 0


def _unknown_rules(control: Control) -> str:
    """What to say of names in the directive that are no rule's: a misspelt skip would skip nothing."""
    from compiler.checks.registry import BUILDKIT, strict_rules

    names = {rule.name.lower(): rule.name for rule in (*BUILDKIT, *strict_rules())}
    unknown = sorted((control.skip | control.experimental) - names.keys() - {ALL})
    hints = [f"{name}{did_you_mean(name, names.values())}" for name in unknown]
    return f"there is no rule {'; '.join(hints)}" if hints else ""


def _open(request: Request, images: _Images) -> CheckedFile:
    options = request.variants[0]
    dockerfile = parse_dockerfile(_source(request))
    return CheckedFile(
        dockerfile, options, images.config, lambda: ignore_rules(request.definition), whole=not options.target
    )


def _source(request: Request) -> Source:
    if request.definition.source is None:
        raise UsageError(
            "the Dockerfile is in a remote context, which is not fetched for checks", hint="give it with -f -"
        )
    return request.definition.source


def _render(form: str, source: Source, findings: list[Reported], error: DockerfileError | None) -> str:
    if form == "json":
        from compiler.checks import lint_json

        return lint_json.render(source, findings, error)
    if form == "sarif":
        from compiler.checks import sarif
        from compiler.cli.version import version

        return sarif.render(source, findings, version(), error)
    from compiler.checks import text

    return printable_lines(text.render(findings))


class _Images:
    """The images of a store that exists and can be opened; no images otherwise: checks work without."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._store: LmdbStore | None = None

    def __enter__(self) -> _Images:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def config(self, name: str, platform: Platform) -> ImageConfig | None:
        if self._store is None:
            if not os.path.exists(os.path.join(self._directory, "data.mdb")):  # opening would make one
                return None
            from cache.lmdb_store import LmdbStore

            try:
                self._store = LmdbStore(self._directory)
            except StoreProblem:
                self._directory = ""
                return None
        from cache.images import Images

        return image_at_hand(Images(self._store), name, platform)
