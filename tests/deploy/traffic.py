"""Signs without a pause until told to end, each signature verified here, nothing ever tried twice.

    python -m tests.deploy.traffic URL [PER_SECOND]          DEADLINE_MS (5000) is that of each request

At the end (SIGTERM, SIGINT) one line of JSON: how many were signed, which epochs they were of, how many failed and how,
and the longest that one took. A connection is kept for some requests only: whoever drains a pod meets old and new ones.
"""

import json
import os
import signal
import ssl
import sys
import threading
import time
from collections import Counter
from types import FrameType

import httpx

from common import ed25519
from rest_api.client_wire import unb64

REQUESTS_PER_CONNECTION = 20
DEADLINE_MS = int(os.environ.get("DEADLINE_MS", "5000"))


class Traffic:
    """What was asked so far, and what became of it."""

    def __init__(self, url: str, per_second: float) -> None:
        self._url = url
        self._every_s = 1 / per_second
        self._ended = threading.Event()
        self.signed: Counter[int] = Counter()
        self.failed: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.slowest_s = 0.0

    def end(self, number: int, frame: FrameType | None) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            with httpx.Client(
                base_url=self._url,
                timeout=DEADLINE_MS / 1000 + 10,
                trust_env=False,
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            ) as client:
                for _ in range(REQUESTS_PER_CONNECTION):
                    if self._ended.is_set():
                        return
                    began = time.monotonic()
                    self._one(client)
                    took_s = time.monotonic() - began
                    self.slowest_s = max(self.slowest_s, took_s)
                    time.sleep(max(0.0, self._every_s - took_s))

    def _one(self, client: httpx.Client) -> None:
        message = os.urandom(24).hex()
        try:
            answer = client.post("/v1/sign", json={"text": message}, headers={"Request-Timeout-Ms": str(DEADLINE_MS)})
        except httpx.HTTPError as error:
            self._fail(type(error).__name__)
            return
        if answer.status_code != 200:
            self._fail(f"{answer.status_code} {answer.text[:300]}")
            return
        body = answer.json()
        if not ed25519.verify(unb64(body["public_key"]), message.encode(), unb64(body["signature"])):
            self._fail("a wrong signature")
            return
        self.keys.add(body["public_key"])
        self.signed[body["epoch"]] += 1

    def _fail(self, why: str) -> None:
        sys.stderr.write(f"{time.strftime('%T')} {why}\n")
        sys.stderr.flush()
        self.failed[why[:60]] += 1


def main() -> None:
    traffic = Traffic(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10.0)
    signal.signal(signal.SIGTERM, traffic.end)
    signal.signal(signal.SIGINT, traffic.end)
    traffic.run()
    told = {
        "signed": sum(traffic.signed.values()),
        "epochs": sorted(traffic.signed),
        "keys": sorted(traffic.keys),
        "failed": dict(traffic.failed),
        "slowest_s": round(traffic.slowest_s, 2),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
