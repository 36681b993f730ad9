"""Answers made smaller for clients that take them so: the files of the page, and long lists."""

import gzip

from quart import Response, request

_HEADERS = {"content-encoding": "gzip"}
#: The least work: lists of numbers shrink to a tenth all the same, and are made every second.
_QUICK = 1


def takes_gzip() -> bool:
    """Return whether whoever has sent the current request takes an answer that is compressed."""
    return request.accept_encodings.quality("gzip") > 0


def gzipped(content: bytes) -> bytes:
    """Return *content* as small as it gets, for what is made once and sent often."""
    return gzip.compress(content, mtime=0)


async def compress(response: Response) -> Response:
    """Compress an answer that is whole, where it may be."""
    response.headers["vary"] = "accept-encoding"
    if takes_gzip() and response.status_code == 200:
        content = await response.get_data(as_text=False)
        response.set_data(gzip.compress(content, _QUICK))
        response.headers.update(_HEADERS)
    return response
