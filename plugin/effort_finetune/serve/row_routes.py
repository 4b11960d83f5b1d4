"""What is done with batches and rows: announced, sent, looked at, corrected, removed."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from effort_finetune.serve.kept_files import NoRoom
from effort_finetune.serve.open_page import OpenPage
from effort_finetune.serve.page_row import Row

_PICTURE = re.compile(r"[a-z0-9_]{1,60}\.(jpg|png)")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AnnouncedFile(_Asked):
    """A file that is about to be sent: its name, with folders, and its size in bytes."""

    name: Annotated[str, Field(min_length=1, max_length=4096)]
    size: Annotated[int, Field(ge=0)]


class Announcement(_Asked):
    """Files that were dropped together."""

    files: Annotated[list[AnnouncedFile], Field(min_length=1, max_length=10_000)]
    stability: bool = False


class Correction(_Asked):
    """What a file is, against its verdict; null takes it back."""

    label: Literal["real", "fake"] | None


def row_routes(page: OpenPage) -> APIRouter:
    """Makes the routes of batches and rows."""
    router = APIRouter(tags=["rows"])

    def found(number: int) -> Row:
        row = page.store.row(number)
        if row is None:
            raise HTTPException(404, "no such row")
        return row

    @router.post("/batches", summary="Say which files will be sent")
    def announce(asked: Announcement) -> dict[str, list[int]]:
        listed = [(file.name, file.size) for file in asked.files]
        return {"rows": page.announce(listed, stability=asked.stability)}

    @router.delete("/batches/{number}", status_code=204, summary="Remove a batch and all that lies of it")
    def remove_batch(number: int) -> None:
        page.remove(number)

    @router.put("/rows/{number}/file", status_code=204, summary="Send the bytes of a file")
    async def receive(number: int, request: Request) -> Response:
        row = found(number)
        if row.state != "expected" or row.id in page.arriving:
            raise HTTPException(409, f"this file is {row.state} already")
        page.arriving.add(row.id)
        try:
            await _receive(page, row, request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        finally:
            page.arriving.discard(row.id)
        page.arrived(row.id)
        return Response(status_code=204)

    @router.get("/rows/{number}", summary="All that is said of a file")
    def one(number: int) -> dict[str, Any]:
        row = found(number)
        said = row.labelled()
        return row.summary() | {
            "record": None if said is None else said.to_dict(),
            "pictures": _shown(row),
            "evidence": page.evidence.can_be_had(row),
        }

    @router.delete("/rows/{number}", status_code=204, summary="Remove a row and all that lies of it")
    def remove_row(number: int) -> None:
        page.remove_row(found(number))

    @router.get("/rows/{number}/pictures/{name}", summary="A small picture of a file")
    def picture(number: int, name: str) -> FileResponse:
        path = page.files.pictures(number) / name
        if not _PICTURE.fullmatch(name) or not path.is_file():
            raise HTTPException(404, "no such picture")
        # The picture of a row never changes: the browser may keep it for as long as it shows the page.
        return FileResponse(path, headers={"cache-control": "private, max-age=3600"})

    @router.get(
        "/rows/{number}/evidence.{kind}", summary="What a verdict rests on, to print or to read by program"
    )
    async def evidence(number: int, kind: Literal["html", "json"]) -> FileResponse:
        row = found(number)
        batch = page.store.batch(row.batch)
        if row.state != "done" or batch is None:
            raise HTTPException(409, "it has no verdict yet")
        made = page.evidence.made(row)
        if not made:
            asked = page.scoring.ask(lambda: page.evidence.make(row, stability=batch.stability))
            made = await asyncio.wrap_future(asked)
        return FileResponse(made[kind], filename=f"evidence-{made[kind].name}")

    @router.put("/rows/{number}/label", summary="This is wrong: say what a file is")
    def correct(number: int, asked: Correction) -> dict[str, str | None]:
        row = found(number)
        if row.state != "done":
            raise HTTPException(409, "it has no verdict yet")
        place = page.correct(row, asked.label)
        return {"path": None if place is None else str(place), "train_dataset": str(page.corrections.folder)}

    return router


def _shown(row: Row) -> dict[str, Any]:
    shown = row.pictures
    return {
        "preview": shown.preview, "frame": shown.frame, "width": shown.width, "height": shown.height,
        "crops": [vars(crop) for crop in shown.crops],
    }  # fmt: skip


async def _receive(page: OpenPage, row: Row, request: Request) -> None:
    """Writes a body to its place; nothing of it stays where it is not whole."""
    try:
        page.files.claim(row.id, row.size)
    except NoRoom as error:
        raise HTTPException(503, str(error), headers={"retry-after": "2"}) from error
    received = 0
    try:
        with page.files.open(row.id, row.name) as stream:
            async for chunk in request.stream():
                received += len(chunk)
                if received > row.size:
                    break
                stream.write(chunk)
        if received != row.size:
            raise HTTPException(
                400, f"{row.size} bytes were announced; the file changed, or the way is broken"
            )
    except OSError as error:
        page.files.drop(row.id, row.name)
        raise HTTPException(507, f"it cannot be written: {error.strerror or error}") from error
    except BaseException:
        page.files.drop(row.id, row.name)
        raise
