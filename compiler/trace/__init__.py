"""Trace: what happened in a build, when and where, for other programs to show."""
