"""Checks: what a Dockerfile says that is allowed but probably not meant; and what it offers to whoever builds it."""
