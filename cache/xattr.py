"""Extended attributes that a layer keeps: the namespaces that Linux knows, without the overlay filesystem's own."""

from __future__ import annotations

OVERLAY_PREFIXES = ("trusted.overlay.", "user.overlay.")
"""How overlayfs marks opaque and redirected directories. A layer that could set these could point anywhere below it."""

NAMESPACES = ("user.", "trusted.", "security.")
ACCESS_CONTROL_LISTS = ("system.posix_acl_access", "system.posix_acl_default")

MAX_VALUE = 65_535
"""Bytes of one value: EROFS counts them in 16 bits; Linux itself allows one byte more."""
MAX_NAME = 255
"""Bytes of one name, from Linux's XATTR_NAME_MAX."""


def is_kept(name: str) -> bool:
    """Whether a layer carries this attribute; others (macOS puts its own into archives) no Linux filesystem takes."""
    if "\0" in name or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        return False
    if name.startswith(NAMESPACES):
        return not name.startswith(OVERLAY_PREFIXES) and name not in NAMESPACES
    return name in ACCESS_CONTROL_LISTS
