"""A body under somebody else's key: no worker makes it, and nothing is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster
from orders import Made, Orders, layer_of

from cache.index import Index
from cache.rootfs import Rootfs
from tests.cache.layers import needs_root
from worker.action import Action
from worker.context_digest import digest_as_context
from worker.fleet.action_body import Body, Place
from worker.operation import Mount, Run, key_form
from worker.run_key import run_key
from worker.tree import RootfsTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = needs_root
COMMAND = "cat /m/a; echo honest"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("bound"), busybox)
    try:
        made.join("w1")
        yield made
    finally:
        made.close()


def files(directory: Path, text: str) -> Made:
    """A layer of what a context has."""
    directory.mkdir()
    (directory / "a").write_text(text)
    (directory / "a").chmod(0o644)
    return layer_of(directory)


def digest(made: Made) -> str:
    tree = RootfsTree(Rootfs([Index.decode(made.listing)]), lambda _: -1)
    return digest_as_context(tree, "")


class Case:
    """What somebody has executed honestly, once, and layers for whoever forges it."""

    def __init__(self, base: Made, directory: Path) -> None:
        self.base, self.context, self.evil = base, files(directory / "good", "good\n"), files(directory / "evil", "evil\n")
        env = (("PATH", "/bin"), ("NONCE", os.urandom(8).hex()))
        self.run = Run(("/bin/sh", "-c", COMMAND), env, "/", "", "default", "h", (Mount("bind", "/m", 1, "src", True),))
        self.key = run_key(key_form(self.run), "linux/amd64", [base.layer.content], [digest(self.context)], ())

    def body(self) -> Body:
        inputs = ((self.base.layer,), (), (self.context.layer,))
        return Body(Action(self.key, self.run, inputs, "linux/amd64"), (Place(0, 2, "", digest(self.context)),))

    def forged(self, **fields: object) -> Body:
        body = self.body()
        return body._replace(action=body.action._replace(**fields))  # type: ignore[arg-type]  # fields of an action


FORGED: dict[str, Callable[[Case], Body]] = {
    "another command": lambda case: case.forged(operation=case.run._replace(argv=("/bin/sh", "-c", "echo evil"))),
    "another platform": lambda case: case.forged(platform="linux/386"),
    "another layer below": lambda case: case.forged(inputs=((case.base.layer, case.evil.layer), (), (case.context.layer,))),
    "another file mounted": lambda case: case.forged(inputs=((case.base.layer,), (), (case.evil.layer,))),
    "another file that is said to be there": lambda case: case.forged(
        inputs=((case.base.layer,), (), (case.evil.layer,))
    )._replace(places=(Place(0, 2, "", digest(case.evil)),)),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_is_not_made_and_what_is_honest_is(cluster: Cluster, base: Made, tmp_path: Path, what: str) -> None:
    case = Case(base, tmp_path)
    liar, honest = Orders(cluster.server.address, cluster.token), Orders(cluster.server.address, cluster.token)
    try:
        liar.put(base, case.context, case.evil)
        liar.want("make", FORGED[what](case))
        assert liar.take("declined", case.key).reason
        assert cluster.server.events("lease given back")[-1]["text"] in (
            "its key is not that of what it says", "the layer of a mount holds something else than its key counts",
        )  # fmt: skip
        honest.want("make", case.body())
        assert honest.take("started", case.key).worker == "w1", "nothing was there"
        outcome, log = honest.end_of(case.key)
        assert outcome.HasField("result")
        assert log == b"good\nhonest\n"
    finally:
        liar.close()
        honest.close()


def test_a_variable_that_no_key_counts_is_a_proxy_or_nothing_is_made(cluster: Cluster, base: Made, tmp_path: Path) -> None:
    case, build = Case(base, tmp_path), Orders(cluster.server.address, cluster.token)
    try:
        build.put(base, case.context)
        build.want("make", case.body(), proxies={"ENV": "/m/a"})
        assert build.take("declined", case.key).reason
        assert cluster.server.events("lease given back")[-1]["text"] == "a variable that no key counts is no proxy"
    finally:
        build.close()
