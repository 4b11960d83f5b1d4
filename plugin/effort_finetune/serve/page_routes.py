"""The page's own files and what it asks for again and again."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import Response

from effort_finetune.serve.open_page import OpenPage

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def assets() -> dict[str, bytes]:
    """Returns the page's files by name."""
    folder = files("effort_finetune.serve").joinpath("assets")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def page_routes(page: OpenPage) -> APIRouter:
    """Makes the routes of the page itself."""
    router = APIRouter(tags=["page"])
    held = assets()

    def asset(name: str) -> Response:
        kind = _TYPES.get(f".{name.rpartition('.')[2]}")
        if name not in held or kind is None:
            raise HTTPException(404, "no such file")
        return Response(held[name], media_type=f"{kind}; charset=utf-8")

    @router.get("/", include_in_schema=False)
    def index() -> Response:
        return asset("page.html")

    @router.get("/assets/{name}", include_in_schema=False)
    def file(name: str) -> Response:
        return asset(name)

    @router.get("/state", summary="What changed since a revision")
    def state(since: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        revision = page.store.revision  # before the rows: a change in between is sent twice, not never
        batches = page.store.batches_with_counts()
        rows = page.store.rows(since=since)
        return {
            "start": page.start,
            "revision": revision,
            "about": page.about,
            "file_bytes": page.limits.file_bytes,
            "corrections": str(page.corrections.folder),
            "trouble": page.scoring.trouble,
            "frames_read": page.scoring.frames_read(),
            "batches": [
                {"id": b.id, "started": b.started, "stability": b.stability, "about": b.about, "rows": count}
                for b, count in batches
            ],
            "rows": [row.summary() for row in rows],
        }

    return router
