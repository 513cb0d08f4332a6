"""Against: which build and which step of a colleague a step is compared with, and why that one's record did not hit."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import TITLE_LIMIT
from cache.errors import UsageError
from compiler.dockerfile.errors import did_you_mean
from compiler.foreign_records import Both, ForeignRecords, explain_foreign
from compiler.incomparable import without_marks
from compiler.planned_world import PlannedWorld
from compiler.preimage import masked
from compiler.reasons import Explained, Reason
from compiler.team_records import parsed_build
from worker.maker import maker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache.build_record import BuildRecord, NodeRecord
    from compiler.graph import Node
    from compiler.preimage import Preimage
    from compiler.session import Session
    from compiler.team_records import Team

LISTED = 12
"""People or projects that a message names."""
_KEY = re.compile(r"[0-9a-f]{12}-[0-9a-f]{0,8}")
UNTOLD = "what is recorded of the two cannot be compared: it was written by another version, or is damaged"


class Wanted(NamedTuple):
    """Whose build. who: `ann@laptop`, `ann` or `laptop`, "" for anybody; key: of a build, or its beginning, else ""."""

    who: str = ""
    key: str = ""


class Against(NamedTuple):
    """The outcome. hit: `recipe`, `content` or "" for none, when why tells it. made: who made what hits, else "".
    note: what else is to be known, "" for nothing."""

    build: BuildRecord
    theirs: NodeRecord
    hit: str
    why: Explained
    made_by: str = ""
    note: str = ""


def parse_against(text: str) -> Wanted:
    """`remote`, `remote:WHO` or `remote:BUILD`. Raises UsageError."""
    where, colon, what = text.partition(":")
    if where != "remote" or (colon and not what):
        hint = "write --against remote, remote:ann@laptop (a colleague), or remote:019… (the key of a build)"
        raise UsageError(f"--against {text!r} says nothing that steps can be compared with", hint=hint)
    return Wanted(key=what) if _KEY.fullmatch(what) else Wanted(who=what)


def compare(session: Session, node: Node, team: Team, wanted: Wanted) -> Against:
    """Find the build, and the step in it, and say why its record did not hit here.

    Raises UsageError if there is no such build or step, RemoteError.
    """
    project = shared_project(session.project)
    builds = team.builds(project)
    build = _find_build(session, node, team, builds, wanted, project)
    recipe = session.keys.recipe(node.id)
    world = ForeignRecords(team.find, partial(_shown, session))
    world.prefetch([each.recipe for each in build.nodes])
    theirs = _find_step(session, node, build, world)
    if theirs is None:
        text = f"the build {build.key} of {build.made_by} has no step like {node.id}"
        raise UsageError(text, hint=f"it had {', '.join(each.id for each in build.nodes[:LISTED]) or 'none'}")
    if theirs.recipe == recipe:
        return _same(build, theirs, team.made(recipe))
    session.known()  # what it finds, contents tells
    content = session.lookup.contents.get(node.id, "")
    if content and content == theirs.content:
        text = "the recipe is another, but what it is made of is the same, and so the result is"
        return Against(build, theirs, "content", Explained(Reason.SAME_CONTENT, text), build.made_by)
    made_by = team.made(recipe)
    note = "" if made_by is None else f"it hits all the same: the remote has this recipe's result, made by {made_by}"
    return Against(build, theirs, "", _why(session, node, theirs, world), made_by or "", note)


def _shown(session: Session, preimage: Preimage) -> Preimage:
    """What is a secret here is not to be shown, whoever wrote it down."""
    return masked(preimage, session.graph.secrets, lambda _: "")


def shared_project(project: str) -> str:
    """A project as others see it: a directory's name, not where it is."""
    return (os.path.basename(project.rstrip("/")) if os.path.isabs(project) else project) or "-"


def _same(build: BuildRecord, theirs: NodeRecord, made_by: str | None) -> Against:
    if made_by is not None:
        why = Explained(Reason.SAME_RECIPE, "the recipe is the same, and the remote has its result")
        return Against(build, theirs, "recipe", why, made_by)
    what = {
        "failed": "it failed there, so there is no result",
        "cancelled": "it did not come to its end there, so there is no result",
    }.get(theirs.status, "the remote has no result of it: it was not published, or cleaned up since")
    return Against(build, theirs, "", Explained(Reason.GONE, f"the recipe is the same, but {what}"))


# which build


def _find_build(
    session: Session, node: Node, team: Team, builds: list[BuildRecord], wanted: Wanted, project: str
) -> BuildRecord:
    if wanted.key:
        return _by_key(team, builds, wanted.key, project)
    if wanted.who:
        theirs = [build for build in builds if _is_by(build, wanted.who)] or team.builds(project, wanted.who)
        if not theirs:
            likely = did_you_mean(wanted.who, {build.made_by for build in builds})
            text = f"the remote has no build of {project} by {wanted.who}{likely}"
            raise UsageError(text, hint=_who_there_is(team, builds))
    else:
        # A comparison with oneself says little, unless there is nobody else.
        theirs = [build for build in builds if build.made_by != maker()] or builds
        if not theirs:
            raise UsageError(f"the remote has no build of {project}", hint=_who_there_is(team, builds))
    return _of_same_definition(session, theirs)


def _of_same_definition(session: Session, builds: Sequence[BuildRecord]) -> BuildRecord:
    """The newest of the builds that seem to be of the same Dockerfile, target and platform, as far as there are any:
    where the file lies on another machine says nothing."""
    platform, target = str(session.options.platform), session.graph.target
    shown = session.graph.secrets.shown
    titles = {shown(node.text)[:TITLE_LIMIT] for node in session.graph if node.is_step}

    def is_alike(build: BuildRecord) -> bool:
        return 2 * len(titles & {node.title for node in build.nodes}) >= len(titles)

    return max(builds, key=lambda build: (
        build.platform == platform, is_alike(build), build.target == target, build.started,
    ))  # fmt: skip


def _by_key(team: Team, builds: list[BuildRecord], key: str, project: str) -> BuildRecord:
    found = [build for build in builds if build.key.startswith(key)]
    if not found:
        parsed = (parsed_build(name, value) for name, value in team.find("builds", [key]).items())
        found = [build for build in parsed if build is not None]
    if len(found) > 1:
        raise UsageError(f"there are {len(found)} builds whose keys begin with {key}", hint="write more of it")
    if not found:
        newest = ", ".join(f"{build.key} by {build.made_by}" for build in builds[:3])
        hint = f"the newest ones of {project} are {newest}" if newest else _who_there_is(team, builds)
        raise UsageError(f"the remote has no build {key}", hint=hint)
    return found[0]


def _is_by(build: BuildRecord, who: str) -> bool:
    user, _, machine = build.made_by.partition("@")
    return who.lower() in (build.made_by.lower(), user.lower(), machine.lower())


def _who_there_is(team: Team, builds: Sequence[BuildRecord]) -> str:
    if builds:
        return f"there are builds of it by {_some(dict.fromkeys(build.made_by for build in builds))}"
    others = dict.fromkeys(build.project for build in team.builds(""))
    return f"there are builds of {_some(others)}" if others else "nobody has published a build there yet"


def _some(names: Mapping[str, None]) -> str:
    more = len(names) - LISTED
    return ", ".join(list(names)[:LISTED]) + (f" and {more} more" if more > 0 else "")


# which step


def _find_step(session: Session, node: Node, build: BuildRecord, world: ForeignRecords) -> NodeRecord | None:
    """The one of the same recipe; else at the same place if it does the same; else one that does the same elsewhere, or
    has the same instruction; else whatever stands at the place."""
    recipe = session.keys.recipe(node.id)
    now = without_marks(session.records.preimage(node)).operation

    def does_the_same(each: NodeRecord) -> bool:
        found = world.earlier(each.recipe)
        return found is not None and without_marks(found).operation == now

    title = session.graph.secrets.shown(node.text)
    at = build.node(node.id)
    if at is not None and (at.recipe == recipe or does_the_same(at)):
        return at
    for fits in (
        lambda each: each.recipe == recipe,
        does_the_same,
        lambda each: each.title == title[:TITLE_LIMIT],
    ):  # fmt: skip
        found = next((each for each in build.nodes if fits(each)), None)
        if found is not None:
            return found
    return at


# why


def _why(session: Session, node: Node, theirs: NodeRecord, foreign: ForeignRecords) -> Explained:
    before = foreign.earlier(theirs.recipe)
    if before is None:
        text = "the remote does not have what it was made of, so what differs is not known"
        return Explained(Reason.GONE, f"its recipe is another; {text}")
    world = Both(PlannedWorld(session.graph, session.keys, session.records), foreign)
    found = explain_foreign(session.records.preimage(node), before, world)
    return found or Explained(Reason.GONE, UNTOLD)
