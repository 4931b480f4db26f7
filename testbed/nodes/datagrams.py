"""UDP echo that answers from the address it was asked at, fast and for any number of peers."""

from __future__ import annotations

import socket
import struct

__all__ = ["REPLY_DSCP", "DatagramEcho"]

#: Marks what an echo server sends (RFC 2474, pool for local use), so that two of them never echo each other.
REPLY_DSCP = 63
_IP_PKTINFO = 8  # linux/in.h
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_TCLASS = 49, 50, 67  # linux/in6.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h: may exceed net.core.rmem_max, which belongs to the host
_SO_SNDBUFFORCE = 32
_BUFFER_BYTES = 16 << 20
_LARGEST_DATAGRAM = 65_535
_BATCH = 256  # datagrams per turn, so that TCP gets its turns too
_PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo: interface index, local address, header's destination
_PKTINFO_IPV6 = struct.Struct("=16si")  # struct in6_pktinfo: address, interface index


class DatagramEcho:
    """The UDP socket and its loop; give ``fileno`` and ``serve`` to the event loop as a reader."""

    def __init__(self, port: int, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        if family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, REPLY_DSCP << 2)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_TCLASS, REPLY_DSCP << 2)
        self._socket.bind(("", port))
        self._buffer = bytearray(_LARGEST_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._space = socket.CMSG_SPACE(_PKTINFO_IPV6.size)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def serve(self) -> None:
        """Answer what has come, up to a batch."""
        receive, send = self._socket.recvmsg_into, self._socket.sendmsg
        buffers, view, space = [self._buffer], self._view, self._space
        for _ in range(_BATCH):
            try:
                size, ancillary, _flags, peer = receive(buffers, space)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error an earlier datagram met on its way
            try:
                send([view[:size]], _from_same_address(ancillary), 0, peer)
            except OSError:
                continue  # unreachable, forbidden or no room: a datagram may be lost

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _from_same_address(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Control data that sends from the address a datagram was sent to, by whichever way the routes say."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, local, _ = _PKTINFO.unpack(data)
            return [(level, kind, _PKTINFO.pack(0, local, b"\0\0\0\0"))]
        if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            local, _ = _PKTINFO_IPV6.unpack(data)
            return [(level, kind, _PKTINFO_IPV6.pack(local, 0))]
    return []
