"""The scheduler's figures: how long, how many, how late; each with its reason."""

from __future__ import annotations

LEASE_SECONDS = 20.0
"""A lease lives this long after its last renewal: longer than a network that is cut for 10 s, and short enough that
nobody waits long for a machine that died."""
RENEW_SECONDS = 4.0
"""Workers renew this often, so that four renewals may be lost."""
MAX_LEASES = 2
"""Leases of one action at the same time: the first worker's and that of a second one, if the first is late."""
MAX_ATTEMPTS = 3
"""Leases of an action that may end without a result: what kills three machines will kill a fourth."""
MAX_LEAVINGS = 16
"""Leases of an action that workers may give back because they leave, which is nobody's fault; more count like others: a
fleet that is started anew, one machine after the other, does it once each, and something else is wrong then."""

LATE_FACTOR = 2.0
LATE_SECONDS = 10.0
"""A lease is late after max(LATE_FACTOR × expected, LATE_SECONDS) seconds. Below ten seconds a second start, with its
layers to fetch, saves nothing."""
LATE_UNKNOWN = 60.0
"""Seconds after which a lease is late whose action nobody ever timed."""
UNKNOWN_SECONDS = 10.0
"""What an action is taken to last that nobody ever timed."""
OVERDUE_SHARE = 0.25
"""What has run longer than expected is taken to need a quarter of its time so far once more."""

BANDWIDTH = 100e6
"""Bytes a second from one machine to another: a network of 1 Gbit/s."""
CACHE_BYTES = 200_000_000
"""What a warm cache mount is worth, in bytes that need not be moved: two seconds."""
WORTH_WAITING = 0.5
"""Seconds that must be saved before an action waits for a worker though another one is free."""
WAIT_CANDIDATES = 16
"""Busy workers that are looked at for one decision."""
GROUPS = 64
"""Groups of workers that hold the same of an action's layers; finer differences than these are not looked at."""
MAX_ITEMS = 64
"""Layers and caches of an action that placement counts, the largest first."""

HALF_LIFE = 300.0
"""Seconds after which used slot-seconds count half: who had the whole fleet is not punished for long."""
SHARE_SECONDS = 60.0
"""Slot-seconds that count as the same use, so that below this difference the longest path decides."""

NOBODY_SECONDS = 15.0
"""How long an action waits for workers that are away: they come back by themselves within a few seconds. As long it
waits for one that may come back with its last lease."""
ORPHAN_SECONDS = 60.0
"""How long what a worker of an earlier scheduler still executes may go on without a build that wants it: clients need
a while to come back, too."""

MAX_WORKERS = 4096
"""Workers at the same time, those that are away for a moment included; every set of workers has a bit for each."""
MAX_BUILDS = 4096
"""Builds at the same time; each is looked at when a slot is free."""
MAX_WANTED = 200_000
"""Actions that are waited for or run: some 200 MB here."""
MAX_WANTED_PER_BUILD = 20_000
"""No Dockerfile has as many nodes; a client that asks for more is mistaken, and makes the rest itself."""
MAX_KINDS = 1024
"""Kinds of actions that wait or run, by what they need of workers. Whenever a worker becomes free or busy each of them
is looked at: 5 ms with so many. What workers gave back comes on top."""
MAX_KINDS_PER_PERSON = 256
"""Of them those of one person, or of a CI system with one token; who says another `memory=` with each step gets no
further, and holds nobody else up."""
MAX_LAYERS = 50_000
"""Layers and caches known of one worker: more than a disk holds of usual ones; the rest is taken as not there."""
MAX_PEOPLE = 4096
"""People whose use is remembered; those who used least are forgotten first."""
HISTORY_ACTIONS = 20_000
"""Actions whose decisions are kept, the latest ones: the last hours of a busy team."""
HISTORY_DECISIONS = 16
"""Decisions kept of one action, the latest; usually there are four."""
MAX_TEXT = 200
"""Characters of a text that a worker gave as its reason."""
SHOWN_QUEUE = 200
"""Waiting actions in a snapshot."""
