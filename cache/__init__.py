"""Bytes by digest, results by key, and where images come from and go to."""
