"""ContentAddressableStorage: what is there, many small blobs at once, and trees."""

from __future__ import annotations

import grpc
import pytest
import zstandard
from buildgraph.v1 import remote_execution_pb2 as pb
from live import BLAKE3, FUNCTIONS, IDS, SHA256, Live, digest, failure, memory, noise, read_name

from cache.server.limits import MAX_BATCH, MAX_UNPACKED

INVALID = grpc.StatusCode.INVALID_ARGUMENT
OK, NOT_FOUND_CODE, INVALID_CODE = (code.value[0] for code in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, INVALID))
Request = pb.BatchUpdateBlobsRequest.Request


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
def test_only_what_is_missing_is_named_once_and_in_order(live: Live, function: int) -> None:
    blobs = [noise(size, size) for size in (1, 100, 40_000, 2_000_000)]
    absent = [noise(50, 7), noise(60, 8)]
    live.put(*blobs, namespace="main")
    digests = [digest(blob, function) for blob in (absent[1], *blobs, absent[0], absent[1], b"")]
    assert live.missing(*digests, namespace="main", function=function) == [digests[0], digests[5]]
    assert not live.missing(namespace="main", function=function)
    assert live.missing(pb.Digest(hash=digests[1].hash, size_bytes=2), namespace="main", function=function)


def test_functions_do_not_mix(live: Live) -> None:
    live.put(b"some bytes")
    assert live.missing(digest(b"some bytes", SHA256), function=BLAKE3)
    assert live.missing(digest(b"some bytes", BLAKE3), function=SHA256)
    assert not live.missing(digest(b"some bytes"), function=pb.DigestFunction.UNKNOWN), "old clients do not say which"


@pytest.mark.parametrize(
    "wrong",
    [
        pb.Digest(), pb.Digest(hash="a" * 63, size_bytes=10), pb.Digest(hash="a" * 65, size_bytes=1), pb.Digest(hash="A" * 64, size_bytes=1),
        pb.Digest(hash="a" * 64, size_bytes=-1), pb.Digest(hash="a" * 64, size_bytes=1 << 62), pb.Digest(hash="a" * 62 + "/1", size_bytes=1),
        pb.Digest(hash="a" * 63 + "\n", size_bytes=1), pb.Digest(hash="ä" * 32, size_bytes=1),
    ],
)  # fmt: skip
def test_what_is_no_digest(live: Live, wrong: pb.Digest) -> None:
    live.put(b"x")
    assert failure(lambda: live.missing(digest(b"x"), wrong)).code == INVALID
    assert failure(lambda: live.get(wrong)).code == INVALID
    assert failure(lambda: live.cas.SplitBlob(pb.SplitBlobRequest(blob_digest=wrong))).code == INVALID


@pytest.mark.parametrize("function", [pb.DigestFunction.MD5, pb.DigestFunction.SHA1, 77])
def test_functions_that_the_server_does_not_know(live: Live, function: int) -> None:
    refused = failure(lambda: live.missing(digest(b"x"), function=function))
    assert refused.code == INVALID
    assert "SHA256 or BLAKE3" in refused.text


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
def test_a_batch_in_and_out(live: Live, function: int) -> None:
    blobs = [b"", b"a", noise(32 << 10), noise((32 << 10) + 1), noise(1_000_000)]
    live.put(*blobs, namespace="a/b", function=function)
    live.put(*blobs, namespace="a/b", function=function)
    live.again()
    for other in FUNCTIONS:
        absent = digest(b"absent", other)
        assert live.get(*(digest(blob, other) for blob in blobs), absent, namespace="a/b", function=other) == [*blobs, None]
    assert live.read(read_name(blobs[4], "a/b")) == blobs[4]


def test_each_blob_of_a_batch_has_its_own_status(live: Live) -> None:
    good, other, packed = noise(100, 1), noise(100, 2), noise(100, 3)
    requests = [
        Request(digest=digest(good), data=good),
        Request(digest=digest(other), data=other[:-1] + b"?"),
        Request(digest=digest(packed), data=b"no zstd", compressor=pb.Compressor.ZSTD),
        Request(digest=digest(noise(9, 4)), data=noise(9, 4), compressor=pb.Compressor.DEFLATE),
    ]
    answer = live.cas.BatchUpdateBlobs(pb.BatchUpdateBlobsRequest(requests=requests)).responses
    assert [each.status.code for each in answer] == [OK, INVALID_CODE, INVALID_CODE, INVALID_CODE]
    assert [each.digest for each in answer] == [each.digest for each in requests]
    assert live.missing(*(each.digest for each in requests)) == [each.digest for each in requests[1:]]


def test_compressed_blobs_of_a_batch(live: Live) -> None:
    blobs = [b"text " * 1000, noise(500), bytes(2_000_000), b""]
    requests = [Request(digest=digest(blob), data=zstandard.compress(blob), compressor=pb.Compressor.ZSTD) for blob in blobs]
    answer = live.cas.BatchUpdateBlobs(pb.BatchUpdateBlobsRequest(requests=requests))
    assert not any(each.status.code for each in answer.responses)
    assert live.get(*map(digest, blobs)) == blobs
    request = pb.BatchReadBlobsRequest(digests=map(digest, blobs), acceptable_compressors=[pb.Compressor.ZSTD])
    answers = live.cas.BatchReadBlobs(request).responses
    assert [each.compressor for each in answers] == [pb.Compressor.ZSTD, 0, pb.Compressor.ZSTD, 0]
    unpacked = [zstandard.decompress(each.data) if each.compressor else each.data for each in answers]
    assert unpacked == blobs
    assert len(answers[2].data) < 1000


def test_bombs_in_a_batch(live: Live) -> None:
    bomb = zstandard.compress(bytes(1 << 28))
    small, large = pb.Digest(hash="a" * 64, size_bytes=10), pb.Digest(hash="a" * 64, size_bytes=MAX_UNPACKED + 1)
    before = memory()
    request = pb.BatchUpdateBlobsRequest(requests=[Request(digest=small, data=bomb, compressor=pb.Compressor.ZSTD)])
    answer = live.cas.BatchUpdateBlobs(request)
    assert answer.responses[0].status.code == INVALID_CODE
    assert "10 bytes" in answer.responses[0].status.message
    good = Request(digest=digest(b"good"), data=b"good")
    request = pb.BatchUpdateBlobsRequest(requests=[Request(digest=large, data=bomb, compressor=pb.Compressor.ZSTD), good])
    assert [each.status.code for each in live.cas.BatchUpdateBlobs(request).responses] == [INVALID_CODE, OK]
    half = [pb.Digest(hash=digit * 64, size_bytes=MAX_UNPACKED // 2 + 1) for digit in "ab"]
    request = pb.BatchUpdateBlobsRequest(requests=[Request(digest=each, data=bomb, compressor=pb.Compressor.ZSTD) for each in half])
    assert failure(lambda: live.cas.BatchUpdateBlobs(request)).code == INVALID
    assert memory() - before < 100 << 20


def test_batches_that_are_too_large(live: Live) -> None:
    blobs = [noise(1_000_000, seed) for seed in range(5)]
    live.put(*blobs[:4])
    live.put(blobs[4])
    refused = failure(lambda: live.get(*map(digest, blobs)))
    assert refused.code == INVALID
    assert "ByteStream" in refused.text
    assert str(MAX_BATCH) in refused.text
    requests = [Request(digest=digest(blob), data=blob) for blob in blobs]
    assert failure(lambda: live.cas.BatchUpdateBlobs(pb.BatchUpdateBlobsRequest(requests=requests))).code in (
        grpc.StatusCode.RESOURCE_EXHAUSTED, INVALID,
    )  # fmt: skip
    limit = live.capabilities.GetCapabilities(pb.GetCapabilitiesRequest()).cache_capabilities.max_batch_total_size_bytes
    full = [noise(limit // 1000, seed) for seed in range(1000)]
    live.put(*full)
    assert live.get(*map(digest, full)) == full, "what the capabilities promise does fit into a message"


def tree(live: Live, depth: int, width: int) -> tuple[pb.Digest, int]:
    """A tree of directories that all differ: (its root, number of directories)."""
    level = [pb.Directory(files=[pb.FileNode(name=f"f{number}", digest=digest(b"%d" % number))]) for number in range(width**depth)]
    count = 0
    while True:
        encoded = [each.SerializeToString(deterministic=True) for each in level]
        live.put(*encoded)
        count += len(encoded)
        if len(encoded) == 1:
            return digest(encoded[0]), count
        groups = [encoded[at : at + width] for at in range(0, len(encoded), width)]
        level = [
            pb.Directory(directories=[pb.DirectoryNode(name=f"d{n}", digest=digest(child)) for n, child in enumerate(group)])
            for group in groups
        ]


def test_a_tree_by_pages(live: Live) -> None:
    root, count = tree(live, 3, 5)
    pages = list(live.cas.GetTree(pb.GetTreeRequest(root_digest=root, page_size=40)))
    assert [len(page.directories) for page in pages] == [40, 40, 40, 36]
    assert count == 156
    found = [each.SerializeToString(deterministic=True) for page in pages for each in page.directories]
    assert len(set(found)) == count
    assert digest(found[0]) == root
    assert pages[-1].next_page_token == ""
    rest = list(live.cas.GetTree(pb.GetTreeRequest(root_digest=root, page_size=40, page_token=pages[1].next_page_token)))
    assert [each.SerializeToString(deterministic=True) for page in rest for each in page.directories] == found[80:]
    whole = list(live.cas.GetTree(pb.GetTreeRequest(root_digest=root)))
    assert [len(page.directories) for page in whole] == [156]


def test_trees_that_are_none(live: Live) -> None:
    get = live.cas.GetTree
    assert failure(lambda: get(pb.GetTreeRequest(root_digest=digest(b"gone")))).code == grpc.StatusCode.NOT_FOUND
    live.put(b"no directory")
    assert failure(lambda: get(pb.GetTreeRequest(root_digest=digest(b"no directory")))).code == INVALID
    root, _ = tree(live, 1, 2)
    assert failure(lambda: get(pb.GetTreeRequest(root_digest=root, page_token="-5"))).code == INVALID
    assert failure(lambda: get(pb.GetTreeRequest(root_digest=root, page_size=-1))).code == INVALID
    part = pb.Directory(directories=[pb.DirectoryNode(name="gone", digest=digest(b"gone")), pb.DirectoryNode(name="there", digest=root)])
    live.put(part.SerializeToString())
    pages = list(live.cas.GetTree(pb.GetTreeRequest(root_digest=digest(part.SerializeToString()))))
    assert sum(len(page.directories) for page in pages) == 4, "what is there comes, what is gone is left out"
