"""The rules of the house: floors, doors, sizes, and what a build with nothing to do may not import."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("buildgraph", "cache", "worker", "compiler")
"""Lowest first: each may import itself and what stands before it."""
FOLDERS = {"proto", "compiler", "worker", "cache", "tests", "docs", "examples", "bench", ".ci"}
FILES = {"pyproject.toml", "README.md", "Makefile", "LICENSE", ".gitignore", ".gitattributes"}
MAX_LINES = 400
DOORS = {
    "google": {"cache/wire.py"},
    "buildgraph": {"cache/wire.py"},
    "grpc": set(),
    "cryptography": {"worker/fleet/identity.py", "worker/fleet/sealing.py"},
    "jinja2": {"compiler/pages/templates.py"},
    "opentelemetry": {"compiler/trace/otel.py"},
    "lmdb": {"cache/lmdb_store.py"},
    "pyfastcdc": {"cache/chunks.py"},
    "ctypes": {"cache/server/tuning.py", "worker/mounts.py", "worker/seccomp.py"},
    "subprocess": {
        "cache/credentials.py", "compiler/agents.py", "compiler/cli/load.py", "compiler/git_source.py", "worker/namespaces.py",
    },
    "urllib3": {"cache/transport.py", "compiler/http_files.py"},
    "rich": {"compiler/progress/tty.py"},
    "prometheus_client": {"cache/server/metrics.py"},
}
"""Foreign thing → the only files that may import it."""
WIRE = ("cache/server/", "cache/remote/", "compiler/fleet/", "worker/fleet/")
"""Folders that are one door: for gRPC and its messages. They are imported where they are used, as one thing."""
ON_THE_WIRE = {"grpc", "google", "buildgraph", "grpc_health", "grpc_reflection"}
LAZY = {"networkx", "rich", "grpc", "google", "urllib3", "opentelemetry"}
"""What may only be imported where it is used; a whole file may be imported that way, too."""
NOT_FOR_NOTHING = (
    "networkx", "grpc", "google.protobuf", "rich", "asyncio", "click", "importlib.metadata", "urllib3", "isal",
    "zstandard", "tarfile", "concurrent.futures", "logging",
)  # fmt: skip
MACHINE_PATHS = re.compile(r"/(?:root|work|Users)/|/home/(?!app\b)")
"""Places of a developer's own machine. /home/app is the home of the test image's user."""
ALLOWED_PATHS = {
    "tests/rootless.sh": "/home/",  # "$place/home/…"
}


def tracked() -> list[str]:
    """Paths of the files that belong to the repository, also of those that are still to be added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode != 0:  # an unpacked archive: everything there is
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        return sorted(str(path) for path in paths if not any(part.startswith(".") or "egg-info" in part for part in path.parts))
    return sorted(path for path in listed.stdout.decode().split("\0") if path and (ROOT / path).is_file())


PYTHON = [path for path in tracked() if path.endswith(".py") and not path.endswith(("_pb2.py", "_pb2_grpc.py"))]
MODULES = [path for path in PYTHON if path.split("/")[0] in FLOORS]


class Import:
    """One imported name. top: when the module is. typing: only for the type checker."""

    def __init__(self, name: str, *, top: bool, typing: bool) -> None:
        self.name, self.top, self.typing = name, top, typing


@functools.cache
def tree_of(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


@functools.cache
def imports(path: str) -> list[Import]:
    def visit(node: ast.AST, top: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, top=top, typing=typing)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield Import(node.module or "", top=top, typing=typing)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:
                yield from visit(child, top, True)
            for child in node.orelse:
                yield from visit(child, top, typing)
        else:
            inner = top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inner, typing)

    return list(visit(tree_of(path), True, False))


@pytest.mark.parametrize("path", MODULES)
def test_imports_point_down_only(path: str) -> None:
    floor = FLOORS.index(path.split("/")[0])
    above = FLOORS[floor + 1 :]
    wrong = [each.name for each in imports(path) if each.name.split(".")[0] in (*above, "tests", "bench")]
    assert not wrong, f"{path} imports {wrong} from above"


@pytest.mark.parametrize("thing", sorted(DOORS))
def test_each_foreign_thing_has_one_door(thing: str) -> None:
    users = {path for path in MODULES for each in imports(path) if each.name.split(".")[0] == thing and not each.typing}
    if thing in ON_THE_WIRE:
        users = {path for path in users if not path.startswith(WIRE)}
    assert users == DOORS[thing]


def test_heavy_things_are_imported_where_they_are_used() -> None:
    doors = set().union(*(DOORS.get(thing, set()) for thing in LAZY))
    found = [
        (path, each.name)
        for path in MODULES
        for each in imports(path)
        if each.top and not each.typing and each.name.split(".")[0] in LAZY and path not in doors and not path.startswith(WIRE)
    ]
    assert not found


def test_the_doors_that_are_expensive_are_themselves_opened_late() -> None:
    """A file that imports something heavy when it is imported may only be imported inside functions."""
    heavy = {"cache.wire", "cache.transport", "compiler.progress.tty"}
    heavy |= {path.removesuffix(".py").replace("/", ".") for path in MODULES if path.startswith(WIRE)}
    above = {
        path
        for path in MODULES
        for each in imports(path)
        if each.top and not each.typing and each.name in heavy and not path.startswith(WIRE)
    }
    late = {"cache/registry.py", "cache/registry_auth.py", "cache/registry_errors.py", "compiler/cli/serve_token.py"}
    assert above <= late, "all of them imported late"


@pytest.mark.parametrize("path", PYTHON)
def test_a_module_is_short_and_says_what_it_is(path: str) -> None:
    text = (ROOT / path).read_text()
    if path.split("/")[0] != "tests":
        lines = text.count("\n")
        assert lines <= MAX_LINES, f"{path} has {lines} lines"
    doc = ast.get_docstring(tree_of(path))
    assert doc, f"{path} does not say what it holds"
    assert doc.splitlines()[0].endswith((".", "?")), f"the first line of {path} is no sentence"


def test_the_median_module_is_short() -> None:
    lengths = sorted((ROOT / path).read_text().count("\n") for path in MODULES if not path.endswith("__init__.py"))
    assert lengths[len(lengths) // 2] <= 130


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {str(Path(path).parent).replace("/", ".") for path in MODULES if path.endswith("__init__.py")}
    folders = {str(Path(path).parent).replace("/", ".") for path in MODULES}
    assert folders == packages, "every folder with modules is a package"
    generated = {"buildgraph", "buildgraph.v1"}
    assert set(settings["packages"]) == packages | generated


def test_the_top_level_is_as_designed() -> None:
    paths = [Path(path).parts for path in tracked()]
    assert {parts[0] for parts in paths if len(parts) > 1} <= FOLDERS
    assert {parts[0] for parts in paths if len(parts) == 1} <= FILES


def test_nothing_is_left_to_do_and_nothing_names_a_machine() -> None:
    found = []
    for path in tracked():
        if path == "tests/test_house.py" or re.search(r"_pb2(_grpc)?\.pyi?$|\.png$", path):
            continue
        for number, line in enumerate((ROOT / path).read_text("utf-8", "replace").splitlines(), 1):
            marks = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", line)
            # Dockerfiles of tests and shell variables hold paths of images and of temporary places.
            places = MACHINE_PATHS.findall(line) if path not in ALLOWED_PATHS else MACHINE_PATHS.findall(line.replace(ALLOWED_PATHS[path], ""))
            if marks or (places and "passwd" not in line):
                found.append(f"{path}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_no_bare_except_and_no_print_below_the_command_line() -> None:
    bare = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                bare.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and not path.startswith("compiler/cli/"):
                bare.append(f"{path}:{node.lineno} prints")
    assert not bare


def test_a_build_with_nothing_to_do_imports_little(program: Program) -> None:
    context = program.project(
        "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nWORKDIR /app\nCOPY a a\nRUN cat a > b\n", {"a": "a"}
    )
    program.build(context, "-t", "app:1").ok()
    code = (
        "import sys\nfrom compiler.cli.main import main\n"
        "code = main(sys.argv[1:])\nsys.stdout.write(chr(10).join(['', *sorted(sys.modules)]))\nsys.exit(code)\n"
    )
    arguments = ["build", str(context), *program.base(), "-t", "app:1", "--progress", "plain"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=program.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "CACHED" in done.stderr.upper()
    loaded = set(done.stdout.split())
    assert "compiler.build" in loaded
    assert not [name for name in NOT_FOR_NOTHING if name in loaded]
