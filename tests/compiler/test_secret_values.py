"""I4: values of variables with secret names, found wherever they went, and replaced by marks."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache.errors import DefinitionError
from compiler.graph import HttpSource
from compiler.secret_values import MASK, WITHIN, SecretValues, shown_url
from tests.compiler.graphs import RUN, history_of, lower
from worker.operation import Copy, Inline, MakeDirectory, Pattern, key_form

TOKEN = "hunter2hunter2"


def mark(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in strings(each)]
    return [text for each in value for text in strings(each)] if isinstance(value, list | tuple) else []


# Real secrets do not look like marks: without the letters of those, no text can come to hold one by being masked.
words = st.text(st.characters(blacklist_characters="*0123456789abcdef", blacklist_categories=("Cs",)), max_size=12)
secrets = st.sets(words.filter(lambda word: len(word) >= WITHIN and word.strip() != ""), min_size=1, max_size=4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[set[str], Any]:
    """Secrets, and plain data with some of them in it."""
    hidden = draw(secrets)
    within = st.lists(st.one_of(words, st.sampled_from(sorted(hidden))), max_size=4).map("".join)
    data = st.recursive(
        st.one_of(within, st.integers(), st.none(), st.booleans()),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(within, inner, max_size=4)),
    )
    env = draw(st.lists(st.tuples(st.one_of(words, st.just("API_TOKEN")), within), max_size=3))
    run = key_form(RUN._replace(env=tuple(env), argv=tuple(draw(st.lists(within)))))
    return hidden, {**run, "more": draw(data)} if draw(st.booleans()) else draw(data)


@given(cases())
@example(({"aaa bbb", "bbb ccc"}, ["aaa bbb ccc aaa bbb bbb ccc"]))
@example(({"xxxxxx", "xxxxxxy"}, {"xxxxxxyxxxxxx": ["xxxxxxy", ("xxxxxx",)]}))
def test_no_secret_is_left_anywhere(case: tuple[set[str], Any]) -> None:
    hidden, data = case
    masked = SecretValues(hidden).marked(data, mark)
    assert not [text for text in strings(masked) for secret in hidden if secret in text]
    assert masked == SecretValues(sorted(hidden)).marked(data, mark), "equal stays equal"
    assert masked == SecretValues(hidden).marked(masked, mark), "what is masked stays as it is"


@given(cases())
def test_what_holds_no_secret_stays_as_it_is(case: tuple[set[str], Any]) -> None:
    hidden, data = case
    if any("@" in text or secret in text for text in strings(data) for secret in hidden):
        return
    assert SecretValues(hidden).marked(data, mark) == SecretValues().marked(data, mark)


def test_fields_and_types_keep_their_names() -> None:
    hidden = SecretValues({"destination", "MakeDirectory", "sources"})
    copy = hidden.marked(key_form(Copy((Pattern(1, "a sources"), Inline("n", "destination")), "/x")), mark)
    assert copy["is"] == "Copy"
    assert copy["sources"][0]["path"] == f"a {MASK}{mark('sources')}"
    assert copy["sources"][1]["text"] == f"{MASK}{mark('destination')}"
    assert hidden.marked(key_form(MakeDirectory("/p")), mark)["is"] == "MakeDirectory"


@pytest.mark.parametrize("env", ["API_TOKEN", None, [1], [["API_TOKEN"]], [["API_TOKEN", 1]], {"API_TOKEN": TOKEN}])
def test_an_env_that_is_no_list_of_variables_stays(env: Any) -> None:
    """A secret's mount has the name of a variable there, a damaged record anything."""
    mounts = [{"is": "Mount", "env": env}]
    assert SecretValues().marked({"is": "Run", "env": env, "mounts": mounts}, mark) == {"is": "Run", "env": env, "mounts": mounts}


def test_a_short_value_is_hidden_as_a_whole_only() -> None:
    run = RUN._replace(env=(("DB_PASS", "abc"), ("COPY_OF_IT", "abc"), ("OTHER", "xabcx"), ("A_TOKEN", "")))
    assert dict(SecretValues().marked(key_form(run), mark)["env"]) == {
        "DB_PASS": f"{MASK}{mark('abc')}", "COPY_OF_IT": f"{MASK}{mark('abc')}", "OTHER": "xabcx", "A_TOKEN": f"{MASK}{mark('')}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pa:ss@host/x", "https://me:***@host/x"),
        ("curl 'https://me:p@ss@host/x' http://h:80/a@b", "curl 'https://me:***@host/x' http://h:80/a@b"),
        ("https://ghp_0123456789abcdef@host/x", "https://***@host/x"),
        ("ssh://git@host/x https://me@host", "ssh://git@host/x https://me@host"),
        ("https://me:$PW@host https://me:${PW}@host", "https://me:$PW@host https://me:${PW}@host"),
        ("https://me:${PW:-pass}@host", "https://me:***@host"),
        ("git+http://me:pw@h/ and ftp://me:pw@h/", "git+http://me:***@h/ and ftp://me:***@h/"),
    ],
)
def test_passwords_in_urls(text: str, shown: str) -> None:
    assert shown_url(text) == shown
    assert shown_url(shown) == shown


# what lowering finds out


def hidden_in(dockerfile: str, *args: tuple[str, str]) -> SecretValues:
    return lower(dockerfile, build_args=args).graph.secrets


def test_values_from_everywhere() -> None:
    found = hidden_in(
        "ARG GLOBAL_TOKEN=global-value\nFROM scratch AS a\nARG API_KEY=default-value\nENV DB_PASSWORD=env-value-1\n"
        "ENV DB_PASSWORD=env-value-2\nFROM a\nARG GLOBAL_TOKEN\nRUN x\n",
        ("GH_PAT", "given-value"),
    )
    text = "global-value default-value env-value-1 env-value-2 given-value other-value"
    assert found.shown(text) == f"{MASK} {MASK} {MASK} {MASK} {MASK} other-value"


@pytest.mark.parametrize(
    ("written", "became"),
    [("${T_TOKEN#hunter2}", "hunter2"), ("${T_TOKEN%2}", "hunter2hunter"), ("${T_TOKEN/2/-}", "hunter-hunter2")],
)
def test_what_was_cut_out_of_a_secret_is_one(written: str, became: str) -> None:
    dockerfile = f"FROM scratch\nARG T_TOKEN={TOKEN}\nENV X={written}\nENV Y=$X\n"
    found = hidden_in(dockerfile).shown(f"is {became}!")
    assert found == f"is {MASK}!"


@pytest.mark.parametrize(
    "written", ["$T_TOKEN and ${T_TOKEN#hunter2}", "a ${NONE:-${T_TOKEN%2}} b $T_TOKEN", "$T_TOKEN$PIN ${T_TOKEN/2/-}${PIN#1}"]
)
def test_what_was_cut_out_beside_a_whole_one(written: str) -> None:
    """In the text itself, and wherever else it comes."""
    lowered = lower(
        f"FROM scratch\nARG T_TOKEN={TOKEN}\nARG PIN_PW=123\nARG PIN=$PIN_PW\nCOPY <<END /x\n{written}\nEND\nRUN x\n"
    )
    copy = next(node.definition for node in lowered.graph if isinstance(node.definition, Copy))
    masked = strings(lowered.graph.secrets.marked(key_form(copy), mark))
    assert "hunter" in str(copy.sources)
    assert [text for text in masked if "hunter" in text] == []


@pytest.mark.parametrize(
    ("token", "line"),
    [
        ("ab//cdSECRETe/+x==", "WORKDIR /a/$T_TOKEN"),
        ("ab//cdSECRETe/+x==", "WORKDIR /a/b$T_TOKEN/c"),
        ("abSECRETq/.", "COPY a* /b$T_TOKEN/"),
        ("./abSECRETq", "COPY a* /b/$T_TOKEN/"),
        ("/abSECRETq//", "WORKDIR $T_TOKEN"),
        ("../abSECRETq", "WORKDIR /a/$T_TOKEN"),
        ("abSECRETq/cd", "WORKDIR /a/$T_TOKEN/.."),
        ("ab//cSECRETd", "RUN --mount=type=cache,target=/c/$T_TOKEN x"),
        ("ab//cSECRETd", "RUN --mount=type=bind,source=/c/$T_TOKEN,target=/t x"),
        ("abc/dSECRETe", "ADD https://host/x/$T_TOKEN /y"),
        ("ab%20SECRETe", "ADD https://host/$T_TOKEN.txt /y"),
    ],
)
def test_a_secret_in_a_path_that_was_cleaned(token: str, line: str) -> None:
    lowered = lower(f"FROM scratch\nARG T_TOKEN\n{line}\nRUN x\n", build_args=(("T_TOKEN", token),))
    steps = [key_form(node.definition) for node in lowered.graph if node.is_step and "T_TOKEN" in node.text]
    assert "SECRET" in str(steps)
    assert "SECRET" not in str(lowered.graph.secrets.marked(steps, mark))
    everything = [key_form(node.definition) for node in lowered.graph if node.is_step]
    assert "SECRET" not in str(lowered.graph.secrets.marked(everything, mark))


def test_words_beside_a_secret_in_a_path_stay() -> None:
    found = hidden_in("FROM scratch\nARG T_TOKEN\nWORKDIR /library/$T_TOKEN/..\n", ("T_TOKEN", "/secrets/../abcdefgh/"))
    assert found.shown("/library/x secrets-y abcdefgh /abcdefgh/z") == f"/library/x secrets-y abcdefgh {MASK}/z"


def test_whether_there_is_a_secret_is_none() -> None:
    found = hidden_in(f"FROM scratch\nARG T_TOKEN={TOKEN}\nENV MODE=${{T_TOKEN:+production}}\nENV X=$T_TOKENS-fixed\n")
    assert found.shown("production -fixed") == "production -fixed"


def test_the_history_has_only_the_name_of_whatever_holds_a_secret() -> None:
    lowered = lower(
        "FROM scratch\nARG API_TOKEN\nARG URL=https://$API_TOKEN/x\nARG SHORT_PW=abc\nARG OF_SHORT=$SHORT_PW\nARG PLAIN=1\n"
        "ARG CUT=${API_TOKEN#hunter2}\nARG REPO=https://me:pass@host\nARG SAME\nRUN x\nCOPY $API_TOKEN /y\n",
        build_args=(("API_TOKEN", TOKEN), ("SAME", TOKEN)),
    )
    lines = history_of(lowered)
    assert lines[-2] == "RUN |8 API_TOKEN URL SHORT_PW OF_SHORT PLAIN=1 CUT REPO SAME /bin/sh -c x # buildkit"
    assert lines[-1] == f"COPY {MASK} /y # buildkit"
    assert lines[:-2] == [f"ARG {name}" for name in lines[-2].split()[2:10]]


def test_names_of_sources_hold_no_secret() -> None:
    """Node ids and texts go to every plan and every log."""
    lowered = lower(
        "FROM scratch\nARG API_TOKEN=hunter2hunter2\nADD https://me:pass@host/f https://host/f?t=$API_TOKEN /x/\n"
    )
    nodes = [node for node in lowered.graph if node.kind == "http"]
    assert [node.id for node in nodes] == ["http:https://me:***@host/f", "http:https://host/f?t=***"]
    assert [node.text for node in nodes] == ["https://me:***@host/f", "https://host/f?t=***"]
    urls = [node.definition.url for node in nodes if isinstance(node.definition, HttpSource)]
    assert urls == ["https://me:pass@host/f", "https://host/f?t=hunter2hunter2"]


def test_an_error_does_not_tell_a_secret() -> None:
    with pytest.raises(DefinitionError) as caught:
        lower("FROM scratch\nARG API_TOKEN=hunter2hunter2\nEXPOSE $API_TOKEN\n")
    assert TOKEN not in caught.value.message
    assert MASK in caught.value.message
