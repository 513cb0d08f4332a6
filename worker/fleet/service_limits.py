"""Limits of the scheduler's service: what one stream, one caller and all of them may take, and why."""

from __future__ import annotations

STREAMS = 1536
"""Threads for calls that live as long as a build or a worker: 1,000 workers, 400 builds and those who look on. A thread
that waits costs 100 KiB, and each build and worker has a second one that reads."""
MAX_WORKER_STREAMS = 1024
MAX_BUILD_STREAMS = 400
MAX_WATCHERS = 96
"""Of all callers; together fewer than threads, so that none of them waits for another one's end unseen."""
MAX_BUILDS_CALLER = 200
"""A token may be a whole CI system's."""
MAX_WATCHERS_CALLER = 16
MAX_WORKERS_CALLER = 1024
"""The workers of a team usually have one token."""

TICK_SECONDS = 1.0
"""How often time passes for the scheduler when nothing else happens."""
REVIEW_SECONDS = 10.0
"""How often is seen whether the tokens of open streams are still good."""
STUCK_SECONDS = 60.0
"""A stream whose other end takes nothing for so long, though there is something, is ended."""
AWAY_SECONDS = 5.0
"""How long a build whose stream broke may come back before what it wants is cancelled: a client tries again within
two seconds, and whoever lost its client does not pay for long."""
LINGER_SECONDS = 60.0
"""How long a worker that left is shown, and its name kept for its key."""

MAX_MESSAGES = 50_000
"""Messages that wait for one stream: a build's largest number of actions twice. Beyond, the stream is ended, and its
other end opens it again and asks for what it still wants."""
PAUSE_MESSAGES = 1_000
"""With so many of them nothing more is read of a build until it has taken some."""
MAX_SEALED = 4 << 20
"""Sealed bytes that wait for one stream; a channel that sends more is ended. Agents speak in messages of 256 KiB."""
MAX_SEALED_MESSAGE = 300 << 10
"""Bytes of one sealed message, a chunk of 256 KiB with what goes around it."""
MAX_CHANNEL = 300
"""Characters of a channel's name."""

MAX_LOG = 64 << 20
"""Bytes that are kept of the output of an action that runs, so that builds that join late see all of it."""
MAX_LOGS = 4 << 30
"""Bytes of all of them together."""
LOG_IN_MEMORY = 64 << 10
"""Bytes of one that stand in memory; more go to a file. Most steps print less."""
LOG_PIECE = 64 << 10
"""Bytes of a log in one message."""
MAX_LOG_PIECE = 1 << 20
"""Bytes of one message of a log that a worker may send."""
DRAIN_SECONDS = 2.0
"""How long the end of an action waits for a client to take the rest of its log; after that the middle is left out."""
LOG_TAIL = 256 << 10
"""Bytes of a log's end that even a slow client gets before the end of the action."""

MAX_BODIES = 512 << 20
"""Bytes of all that is said of actions that wait, their bodies for the most part; beyond, clients make actions
themselves."""
MAX_TEXT = 1_000
"""Characters of a text for people."""
MAX_FAILED = 256
"""Failures that are kept for a build whose stream breaks just then."""
MAX_TEXTS = 20_000
"""Texts of actions that are kept for `why`, like the decisions about them."""
MAX_TAIL = 1_000
"""Lines of a failure's tail."""
SHOWN_BUILDS = 1_000
"""Builds in the state of the fleet."""
