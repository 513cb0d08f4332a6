"""Channels: what a build and the worker of a lease send each other sealed, by name, and its bounds at both ends."""

from __future__ import annotations

SECRETS = "secrets"
AGENT = "ssh:"
"""Beginning of the channels of connections to agents: `ssh:ID:N`; an end of it alone ends all of them."""
CHUNK = 64 << 10
"""Bytes that are sealed at once, well below what one message may hold."""
CONNECTIONS = 32
"""To agents, that one lease may hold at once; ssh needs one each."""
WAITING = 64
"""Messages for one connection that its end has not taken yet; beyond, it is closed."""
