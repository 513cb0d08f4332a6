"""Limits of snapshots of cache mounts, and why."""

from __future__ import annotations

MAX_SNAPSHOT = 2 << 30
"""Bytes of one: a minute at 300 Mbit/s, which is what a package manager's cache usually saves. Larger ones cost more
than they bring, and would take the disk of workers that only wanted to run one step."""
PUBLISH_SECONDS = 600.0
"""Between two of one cache: a build that changes it with every step would else send it with every step. The first one
goes at once, so that the next worker need not begin with nothing."""
LAST_SECONDS = 60.0
"""For those that a worker still has to publish when it drains, together; service managers kill after 90 s."""
MOST_CACHES = 1_000
"""Of one worker that are thought of; what was used least lately is forgotten, and published at once the next time."""
MOST_KNOWN = 20_000
"""Snapshots that the scheduler has in memory, 1 KB each."""
MAX_AHEAD = 3600.0
"""Seconds that a worker's clock may be ahead."""
MAX_MESSAGE = 4096
"""Bytes of what is said of one snapshot, which has 600: leases carry up to 64 of them, and the server keeps them."""
