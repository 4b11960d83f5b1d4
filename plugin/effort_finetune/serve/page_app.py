"""The page as an ASGI application."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from effort_finetune.core.errors import UserError
from effort_finetune.core.version import __version__
from effort_finetune.serve.gate import Gate, GuardedApp
from effort_finetune.serve.open_page import OpenPage
from effort_finetune.serve.page_routes import page_routes
from effort_finetune.serve.record_routes import record_routes
from effort_finetune.serve.row_routes import row_routes


def page_app(page: OpenPage, gate: Gate, *, port: int = 0) -> ASGIApp:
    """Puts the routes together behind the gate.

    Args:
        page: What they work on.
        gate: Who may ask.
        port: What the page listens on.
    """
    # The pages that describe an interface come from another host: the description itself is enough.
    app = FastAPI(
        title="effort-finetune serve",
        version=__version__,
        description="Pictures and videos to verdicts, on this machine. A detector is no proof.",
        docs_url=None,
        redoc_url=None,
    )
    for router in (page_routes(page), row_routes(page), record_routes(page)):
        app.include_router(router)

    @app.exception_handler(UserError)
    def cannot(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=409)

    return GuardedApp(
        app, gate, message_bytes=page.limits.message_bytes, file_bytes=page.limits.file_bytes, port=port
    )
