"""What a user would pick instead: FastAPI on one uvicorn process, with the Ed25519 private key in its memory.

Same routes, same bodies, same checks of size, same libsodium. Whoever owns this process owns the key: that is the
price of its speed, and the reason why it is only a measure.
"""

import argparse
import base64
import hashlib
import os
import uuid
from typing import Annotated

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from common import ed25519
from common.errors import BadInput
from rest_api.models import SignRequest, SignResponse, message_of


class Batch(BaseModel):
    """At most 1000 messages."""

    items: Annotated[list[SignRequest], Field(min_length=1, max_length=1000)]


class BatchAnswer(BaseModel):
    """One result per item, in order."""

    results: list[SignResponse]


def create_app() -> FastAPI:
    """The whole service."""
    private, public = ed25519.generate_keypair(os.urandom(32))
    public_key = base64.b64encode(public).decode()
    app = FastAPI()

    def signed(request: SignRequest) -> SignResponse:
        try:
            message = message_of(request.text, request.data)
        except BadInput as error:
            raise HTTPException(422, error.detail) from None
        return SignResponse(
            request_id=str(uuid.uuid4()),
            key_id="default",
            epoch=1,
            algorithm="Ed25519",
            signature=base64.b64encode(ed25519.sign(private, message)).decode(),
            public_key=public_key,
            message_sha256=hashlib.sha256(message).hexdigest(),
            signers=[1],
        )

    @app.post("/v1/sign")
    async def sign(request: SignRequest) -> SignResponse:
        return signed(request)

    @app.post("/v1/sign/batch")
    async def batch(request: Batch) -> BatchAnswer:
        return BatchAnswer(results=[signed(item) for item in request.items])

    @app.get("/v1/keys")
    async def keys() -> dict[str, list[dict[str, str]]]:
        return {"keys": [{"key_id": "default", "public_key": public_key}]}

    return app


def main() -> None:
    """Serve on loopback until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), host="127.0.0.1", port=parser.parse_args().port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
