"""The routes that run once per signature, reached without the framework's router in between.

They read their bodies and check their callers themselves, so that all that the router would add is time: more than half
of what a request costs here. They are routes of the framework all the same: it documents them, and it answers whatever
is not exactly their method and path.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rest_api import problems
from rest_api.problems import Problem

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    """What ``scope["route"]`` is to those who count and log."""

    path: str
    endpoint: Endpoint


class DirectRoutes:
    """Goes right under ``EveryRequest``, which makes the id and deals with what is raised here.

    Args:
        app: Everything else.
        posts: By path, who answers a POST.
    """

    def __init__(self, app: ASGIApp, posts: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._routes = {path: _Route(path, endpoint) for path, endpoint in posts.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            route = self._routes.get(scope["path"])
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        try:
            response = await route.endpoint(Request(scope, receive, send))
        except Problem as problem:
            scope["signer_flow.problem"] = problem.code
            response = problems.respond(problem, scope["signer_flow.request_id"])
        await response(scope, receive, send)
