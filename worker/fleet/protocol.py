"""Protocol: the version that the scheduler, workers and builds speak with each other."""

from __future__ import annotations

VERSION = 2
"""Of `proto/buildgraph/v1/fleet.proto`. 2: workers answer a challenge, leases come with a proof and are signed together
with their action, and what a build seals says which action it is for."""
