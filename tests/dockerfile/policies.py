"""Policies written down again, as an author might."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.dockerfile.policy import Policy


def written(policy: Policy) -> list[str]:
    """The words of a comment that mean this; times in whole seconds."""
    words = ["no-cache"] if policy.no_cache else []
    words += [f"ttl={policy.ttl:.0f}s"] if policy.ttl else []
    words += [f"retry={policy.retry}"] if policy.retry else []
    if policy.timeout:
        minutes, seconds = divmod(int(policy.timeout), 60)
        words.append(f"timeout={minutes // 1440}d{minutes // 60 % 24}h{minutes % 60}m{seconds}s")
    words += [f"memory={policy.memory >> 10}k"] if policy.memory else []
    words += [f"label={name}={value}" for name, value in policy.labels]
    return [*words, *(f"secret-in-key={name}" for name in policy.secret_in_key)]
