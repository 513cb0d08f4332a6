"""Builds the cases with docker and buildah, too, and prints where they and the program differ.

    compare.py [NAME…]     names of cases, or the beginnings of their names; all without
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "build"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cases"))

from buildah_engine import buildah
from case import FOLDER, load
from differences import differences
from docker_engine import docker
from engine import lacking, mount_points
from image_archive import read_image
from program import make_busybox
from runner import Runner
from services import services

if TYPE_CHECKING:
    from case import Case
    from engine import Engine
    from runner import Outcome

SAME, KNOWN, DIFFERENT, LACKING = "same", "known", "different", "not covered"


def main(names: list[str]) -> int:
    """Exit code 1 if there is a difference that nothing explains, 4 if there is no engine."""
    cases = [case for case in load() if not names or case.name.startswith(tuple(names))]
    with tempfile.TemporaryDirectory(prefix="conformance-") as temporary:
        folder = Path(temporary)
        base = make_busybox(folder / "busybox")
        with (
            services(folder / "services", FOLDER / "served") as places,
            docker(folder / "docker", base) as first,
            buildah(folder / "buildah", base) as second,
        ):
            engines: list[Engine] = [engine for engine in (first, second) if engine is not None]
            if not engines:
                print("neither docker nor buildah is installed")
                return 4
            comparison = Comparison(folder, base, places, engines)
            for case in cases:
                comparison.compare(case)
            return comparison.summary(len(cases))


class Comparison:
    """Builds one case after the other everywhere and counts."""

    def __init__(self, folder: Path, base: Path, places: dict[str, str], engines: list[Engine]) -> None:
        self._folder = folder
        self._places = places
        self._engines = engines
        self._runner = Runner(folder / "ours", base, places)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._started = time.monotonic()

    def compare(self, case: Case) -> None:
        outcome = self._runner.build(case)
        marks = []
        details: list[str] = []
        for engine in self._engines:
            reason = lacking(engine, case)
            verdict, found = (LACKING, []) if reason else self._ask(engine, case, outcome)
            self._counts[engine.name, verdict] += 1
            if reason:
                self._reasons[engine.name, reason] += 1
            marks.append(f"{engine.name}: {verdict}{f' ({reason})' if reason else ''}")
            details += [f"    {engine.name}: {line}" for line in found]
        print(f"{case.name:45} {'   '.join(marks)}", *details, sep="\n", flush=True)

    def _ask(self, engine: Engine, case: Case, outcome: Outcome) -> tuple[str, list[str]]:
        folder = self._folder / engine.name / "cases" / case.name
        context = case.make_context(folder / "context")
        archive = folder / "image.tar"
        answer = engine.build(case, case.arguments(context, self._places), case.stdin(context), archive)
        if answer.built != (outcome.code == 0):
            text = answer.message if not answer.built else outcome.stderr
            found = [f"outcome: {'built there, an error here' if answer.built else 'built here, an error there'}: {text[-400:]}"]
        elif not answer.built or outcome.image is None:
            return SAME, []
        else:
            found = list(differences(outcome.image, read_image(archive), engine.history))
        archive.unlink(missing_ok=True)
        why = [self._why(engine, case, line) for line in found]
        unexplained = [line for line, reason in zip(found, why, strict=True) if not reason]
        if unexplained:
            return DIFFERENT, unexplained
        return (KNOWN if found else SAME), [f"known: {reason}" for reason in sorted(set(why))]

    def _why(self, engine: Engine, case: Case, line: str) -> str:
        """Why this difference is meant or theirs, "" if nothing says so."""
        named: dict[str, str] = case.expect.get("differs", {}).get(engine.name, {})
        for start, reason in named.items():
            below = ".*" if start.endswith("/") else ""
            if re.match(rf"{re.escape(start)}{below}[ :]", line):
                return reason
        if line.endswith(" is only there") and line.split()[0] in mount_points(case):
            return "newer versions remove the mount points that they made"
        return next((reason for pattern, reason in engine.quirks if re.match(pattern, line)), "")

    def summary(self, total: int) -> int:
        print()
        for engine in self._engines:
            counts = {verdict: self._counts[engine.name, verdict] for verdict in (SAME, KNOWN, DIFFERENT, LACKING)}
            asked = total - counts[LACKING]
            print(
                f"{engine.name} {engine.version}: {asked} of {total} cases covered: {counts[SAME]} the same, "
                f"{counts[KNOWN]} with known differences, {counts[DIFFERENT]} different"
            )
            for (name, reason), count in sorted(self._reasons.items()):
                if name == engine.name:
                    print(f"    not covered: {count:3} {reason}")
        print(f"{time.monotonic() - self._started:.0f} s")
        return 1 if any(self._counts[engine.name, DIFFERENT] for engine in self._engines) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
