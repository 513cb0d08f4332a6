"""The pages of a real server: who sees what, and that nothing which others wrote gets out of its place."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from records import EVIL, build, node
from serving import Client, make_token
from surfing import get, publish

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve
    from program import Program

VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Text and tags; fails for a page whose tags do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_an_empty_server_says_so(serve: Serve) -> None:
    status, headers, html = get(serve("--anonymous", "read"), "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    text = Page(html).text
    for said in ("no lookups yet", "Nobody has published a build yet", "Fleet No workers: every build runs its steps on its own machine"):
        assert said in text


def test_builds_of_two_machines_are_shown_with_pictures(serve: Serve, program: Program) -> None:
    server = serve("--anonymous", "write")
    base = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base AS app\nCOPY a a\nRUN echo hello > b\n"
    remote = ("--remote", f"grpc://{server.address}/main")
    project = program.project(base, {"a": "1"})
    program.build(project, *remote).ok()
    (project / "a").write_text("22")
    program.build(project, *remote).ok()
    program.build(program.project(base.replace("hello > b", "hello > b; false"), {"a": "1"}), *remote).failed(1)
    page = Page(get(server, "/")[2])
    assert page.text.count("✗ failed") == 1
    assert page.text.count("✓ ok") == 2
    assert "% of" in page.text, "what was looked up is counted"
    assert re.search(r"By project .* project .* 3 .*[0-9.]+[kM]B", page.text)
    links = dict.fromkeys(value for name, value in page.attributes if name == "href" and value and value.startswith("/builds/main/"))
    failed, changed, _ = links
    assert failed is not None
    assert changed is not None
    shown = Page(get(server, changed)[2])
    assert "svg" in shown.tags
    assert "a changed (1 B → 2 B)" in shown.text, "why a step ran is looked up in what was published"
    assert ("href", "#n0") in shown.attributes
    assert "stage app ← target" in shown.text
    shown = Page(get(server, failed)[2])
    assert "the command changed" in shown.text
    assert "✗ failed" in shown.text


def test_what_others_wrote_stays_text(serve: Serve) -> None:
    server = serve("--anonymous", "write")
    nodes = (node(f"{EVIL}.1", "image:base", title=EVIL, note=EVIL, reason=EVIL), node("a.2", f"{EVIL}.1", title=EVIL, status="cached"))
    evil = {"project": EVIL, "target": EVIL, "platform": EVIL, "made_by": EVIL, "image": EVIL, "file": EVIL}
    path = publish(server, build(*nodes, **evil))
    for place in ("/", path):
        status, headers, html = get(server, place)
        assert status == 200
        page = Page(html)
        assert not {"script", "img", "iframe", "style"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
        assert "<script>alert(1)" in page.text, "it is shown as what it is"
        assert "{{ 7*7 }}" in page.text
        assert not re.search("[\u202e\x1b\udc80]", html)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "frame-ancestors 'none'" in policy
        outside = [value for name, value in page.attributes if name in ("href", "src") and not (value or "").startswith(("/", "#"))]
        assert not outside, "nothing comes from elsewhere"


def test_a_token_that_was_just_made_opens_the_page_at_once(serve: Serve, tmp_path: Path) -> None:
    store = tmp_path / "served"
    make_token(store, "--name", "first")
    server = serve()
    for name in ("second", "third", "fourth"):
        assert get(server, "/", make_token(store, "--name", name))[0] == 200


def test_a_token_opens_what_it_may_read(serve: Serve, tmp_path: Path) -> None:
    store = tmp_path / "served"
    main = make_token(store, "--name", "main", "--grant", "read,write:main")
    pr = make_token(store, "--name", "pr", "--grant", "read:main", "--grant", "read,write:pr/*")
    blind = make_token(store, "--name", "blind", "--grant", "write:main")
    server = serve()
    for namespace, token in (("main", main), ("pr/7", pr)):
        client = Client(server.address, token)
        client.put(namespace.encode(), namespace)
        client.close()
    in_main = publish(server, build(project="of-main"), "main", main)
    in_pr = publish(server, build(project="of-pr"), "pr/7", pr)

    status, headers, html = get(server, "/")
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic realm=")
    assert "of-main" not in html
    assert get(server, in_main)[0] == 401
    assert get(server, "/", "bgt_000000000000_" + "A" * 43)[0] == 401
    assert server.wait_for("refused")["source"] == "http"
    assert "AAAA" not in server.log.read_text()

    html = get(server, "/", main)[2]
    assert "of-main" in html
    assert "of-pr" not in html
    assert "pr/7" not in html
    assert get(server, in_main, main)[0] == 200
    assert get(server, in_pr, main)[0] == 404, "as if it were not there"
    html = get(server, "/", pr)[2]
    assert "of-main" in html
    assert "of-pr" in html
    assert get(server, in_pr, pr)[0] == 200
    assert "of-main" not in get(server, "/", blind)[2]
    assert get(server, in_main, blind)[0] == 404
    assert get(server, "/healthz")[0] == 200, "needs no token"


def test_paths_that_are_none(serve: Serve) -> None:
    server = serve("--anonymous", "write")
    key = publish(server, build()).rpartition("/")[2]
    for path in (f"/builds/other/{key}", "/builds/", "/builds/main/", f"/builds/main/../main/{key}", f"/builds/{key}", "/builds/main/%00", "/nothing", "/page.css/"):
        assert get(server, path)[0] == 404, path
    status, headers, body = get(server, "/page.css")
    assert (status, headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "prefers-color-scheme: dark" in body
    assert "http" not in body, "nothing comes from elsewhere"
    status, headers, body = get(server, "/", method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 1000


@pytest.mark.alone
def test_a_page_of_many_builds_is_quick_and_made_once(serve: Serve) -> None:
    server = serve("--anonymous", "write")
    now = time.time()
    steps = [node(f"s.{number}", f"s.{number - 1}" if number else "image:base") for number in range(60)]
    for number in range(230):
        publish(server, build(*steps, started=now - number, project=f"p{number}"))
    started = time.monotonic()
    html = get(server, "/")[2]
    assert time.monotonic() - started < 15
    assert ">p0<" in html
    assert "newest 200 builds" in html
    assert ">p150<" not in html
    for number in range(5):  # a busy machine may take longer than a page is kept
        html = get(server, "/")[2]
        publish(server, build(project="later", started=now + 1 + number))
        if get(server, "/")[2] == html:
            return
    pytest.fail("made anew each time")
