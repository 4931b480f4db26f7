"""The small HTTP server: requests in any pieces, bodies, bad input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.nodes.http_server import HttpConversation, Request, speaks_http


def _talk(*pieces: bytes) -> tuple[bytes, HttpConversation]:
    conversation = HttpConversation(lambda request: (200, f"{request.method} {request.path}".encode()))
    return b"".join(conversation.feed(piece) for piece in pieces), conversation


def test_a_request_is_answered_with_its_length() -> None:
    """Status line, type, length, and the body."""
    out, conversation = _talk(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = out.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.1 200 OK"
    assert b"Content-Length: 8" in head
    assert body == b"GET /a?b"
    assert not conversation.ended


def test_head_has_no_body() -> None:
    """The answer to HEAD ends with its head."""
    assert _talk(b"HEAD / HTTP/1.1\r\n\r\n")[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nCONNECTION:Close\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_the_connection_ends_when_it_must(request_head: bytes) -> None:
    """HTTP/1.0, `Connection: close` and chunked bodies end the connection behind the answer."""
    out, conversation = _talk(request_head)
    assert b"Connection: close" in out
    assert conversation.ended


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_bad_requests_get_400(data: bytes) -> None:
    """What is no HTTP/1 request is told so, and the connection ends."""
    out, conversation = _talk(data)
    assert out.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert conversation.ended


def test_an_endless_head_is_cut_off() -> None:
    """More than 64 KiB without the end of a head is refused, so memory stays bounded."""
    out, conversation = _talk(*[b"x" * 10_000] * 20)
    assert out.startswith(b"HTTP/1.1 431 ")
    assert conversation.ended


def test_expect_gets_its_go_ahead() -> None:
    """A client that waits with its body is told to go on."""
    out, _ = _talk(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", b"abc")
    assert out.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@given(st.data(), st.integers(0, 50))
def test_pieces_do_not_matter(data: st.DataObject, body: int) -> None:
    """However a stream of requests with bodies is cut, each request is answered once, in order."""
    stream = b"".join(
        b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (n, body) + b"GET / HTTP/1.1\r\n\r\n"[:body].ljust(body)
        for n in range(3)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    seen: list[Request] = []

    def answer(request: Request) -> tuple[int, bytes]:
        seen.append(request)
        return 200, b""

    conversation = HttpConversation(answer)
    out = b"".join(conversation.feed(piece) for piece in pieces)
    assert [request.path for request in seen] == ["/0", "/1", "/2"]
    assert out.count(b"HTTP/1.1 200 OK") == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Whatever comes, the answer is nothing or an HTTP answer."""
    out, _ = _talk(data)
    assert not out or out.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    ("first", "verdict"),
    [(b"GET /", True), (b"OPTIONS *", True), (b"GE", None), (b"G", None), (b"GEX", False), (b"get /", False),
     (b"\x16\x03", False), (b"POSTER ", False)],
)  # fmt: skip
def test_http_is_known_by_its_first_word(first: bytes, verdict: object) -> None:
    """Methods are HTTP, their beginnings are undecided, everything else is not."""
    assert speaks_http(first) is verdict
