"""Stands in for curl on a machine that has none: the few of its options that the examples and the documentation use.

python curl.py [-s] [-N] [-X METHOD] [-H 'name: value'] [-d BODY|@-] URL
"""

from __future__ import annotations

import argparse
import signal
import sys

import httpx


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as curl ends when nobody reads what it prints
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true", help="shows no progress, which this doesn't anyway")
    parser.add_argument("-N", action="store_true", help="shows what comes when it comes, as this always does")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    asked = parser.parse_args()
    body = sys.stdin.buffer.read() if asked.body == "@-" else asked.body and asked.body.encode()
    headers = dict(tuple(part.strip() for part in header.split(":", 1)) for header in asked.headers)
    url = asked.url if "://" in asked.url else f"http://{asked.url}"
    method = asked.method or ("GET" if body is None else "POST")
    with httpx.stream(method, url, content=body, headers=headers, timeout=None, trust_env=False) as response:
        for part in response.iter_bytes():
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except httpx.ConnectError as error:
        print(f"curl: {error}", file=sys.stderr)
        sys.exit(7)  # curl's own code for it
    except KeyboardInterrupt:
        sys.exit(130)
