"""Answers made smaller for clients that take them so: the page, long lists, streams of events."""

import gzip
import zlib

from quart import Response, request

#: What tells a client that an answer is compressed.
GZIPPED = {"content-encoding": "gzip"}
#: What a stream that is compressed piece by piece begins with (RFC 1952, section 2.3).
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
#: The least work: lists of numbers shrink to a tenth all the same, and are made every second.
_QUICK = 1


def takes_gzip() -> bool:
    """Return whether whoever has sent the current request takes an answer that is compressed."""
    return request.accept_encodings.quality("gzip") > 0


def gzipped(content: bytes) -> bytes:
    """Return *content* as small as it gets, for what is made once and sent often."""
    return gzip.compress(content, mtime=0)


def deflated(piece: bytes) -> bytes:
    """Return a part of a compressed stream, of which a client has the whole as soon as it is there.

    Nothing in it refers to what came before (RFC 1951, section 2), so that streams which began at
    different times are sent the same. Such a stream is broken off and has no end: the checksum that
    RFC 1952 puts there would have to be made for each of them.
    """
    stream = zlib.compressobj(_QUICK, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH)


async def compress(response: Response) -> Response:
    """Compress an answer that is whole, where it may be."""
    response.headers["vary"] = "accept-encoding"
    if takes_gzip() and response.status_code == 200:
        content = await response.get_data(as_text=False)
        response.set_data(gzip.compress(content, _QUICK))
        response.headers.update(GZIPPED)
    return response
