"""Limits of the server: what one request, one caller and all of them together may take, and why."""

from __future__ import annotations

MAX_BATCH = 4_000_000
"""Bytes of blobs in one request or response for many; gRPC's usual limit is 4 MiB with all else in the message."""
MAX_MESSAGE = (4 << 20) + (256 << 10)
"""Bytes of a message that the server takes: a full batch with 1,000 digests, and some more."""
MAX_UNPACKED = 4 * MAX_BATCH
"""Bytes that the compressed blobs of one batch may have unpacked: they stand in memory together."""
PIECE = 1 << 20
"""Bytes of one message of a stream that the server sends. Measured: 870 MB/s, against 320 by 64 KiB."""
THREADS = 128
"""Requests that are answered at the same time. A thread that waits costs 100 KiB."""
MAX_STREAMS = 96
"""Streams at the same time; fewer than threads, so that short requests always find one."""
MAX_STREAMS_CALLER = 64
"""Streams of one caller at the same time; a token may be a whole CI system's."""
MAX_CALLS = 2048
"""Requests that run or wait; those beyond are refused at once with RESOURCE_EXHAUSTED."""
MAX_UNGUARDED = 16
"""Calls at the same time of services that ask for no token, health and reflection: who watches the health holds a
thread for as long as they like."""
IDLE_SECONDS = 60.0
"""A stream must move within this time."""
FIRST_SECONDS = 15.0
"""The first message of a call must come within this time; 4 MiB in it are 2 Mbit/s."""
HANDSHAKE_SECONDS = 20.0
"""A connection must have begun to speak within this time, TLS and HTTP/2 together; each costs a file descriptor."""
MIN_BYTES = 64 << 10
"""That many bytes at least, or all it has: 1 KiB a second is slower than any network that a build would be run on."""
RESUME_SECONDS = 600.0
"""How long a broken upload waits for its client to come back."""
MAX_BROKEN = 256
"""Broken uploads that wait; the oldest goes first. Small ones wait in memory, 8 MiB all together."""
MAX_TREE = 100_000
"""Directories of one tree."""
MAX_CHUNKS = 200_000
"""Chunks of one blob: 100 GB of average ones."""
MAX_DIGESTS = 60_000
"""Digests in one request: as many as a message holds."""
MAX_INLINE = 1 << 20
"""Bytes of outputs that stand in a result itself, if a client asks for it."""
MAX_RECORD = 1 << 20
"""Bytes of one record of the team."""
MAX_RECORDS = 100_000
"""Records of one kind in a namespace; the oldest build, or any other record, makes room for a new one."""
