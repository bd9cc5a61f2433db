"""Requests that ask to go on in a protocol that we do not speak: they are read as if they had not (RFC 9110, 7.8).

The parser takes the end of such a head for the end of HTTP: the body would be lost to its request, or be read as a
request of its own, unseen by whatever stands in front of us. It cannot be told otherwise, so another one starts anew.
"""

from collections.abc import Iterable

import httptools


def plain_head(parser: httptools.HttpRequestParser, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head that this parser has read, without the header that asks."""
    lines = [b"%s %s HTTP/%s\r\n" % (parser.get_method(), url, parser.get_http_version().encode())]
    lines += [b"%s: %s\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"".join(lines) + b"\r\n"


def parser_of(protocol: object) -> httptools.HttpRequestParser:
    """A parser as uvicorn makes them."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
