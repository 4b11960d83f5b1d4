"""Records for other programs: files in, JSON out, and what is on the page as CSV and JSON."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, UploadFile
from fastapi.responses import Response

from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.record_writer import COLUMNS, row_of
from effort_finetune.serve.kept_files import NoRoom
from effort_finetune.serve.open_page import OpenPage
from effort_finetune.serve.page_row import Row

_FINISHED = ("done", "refused")
_LOOK = 0.05  # seconds between two looks at whether a file is finished


def record_routes(page: OpenPage) -> APIRouter:
    """Makes the routes of records."""
    router = APIRouter(tags=["records"])

    def finished(batch: int | None) -> list[FileRecord]:
        said = (page.record(row) for row in page.store.rows(batch=batch))
        return [record for record in said if record is not None]

    @router.post("/predict", summary="Judge files: a record for each, in order")
    async def predict(
        files: list[UploadFile],
        stability: Annotated[bool, Query(description="score again as platforms would deliver it")] = False,
        keep: Annotated[bool, Query(description="leave the rows on the page")] = False,
    ) -> list[FileRecord]:
        rows = page.announce(
            [(file.filename or "file", file.size or 0) for file in files], stability=stability
        )
        try:
            for number, file in zip(rows, files, strict=True):
                await _take(page, number, file)
            return [await _said(page, number) for number in rows]
        finally:
            if not keep:
                for row in filter(None, map(page.store.row, rows)):
                    page.remove_row(row)

    @router.get("/records.csv", summary="The finished rows as CSV, a line each")
    def as_csv(batch: int | None = None) -> Response:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(row_of, finished(batch)))
        return _download(text.getvalue(), "text/csv; charset=utf-8", batch, "csv")

    @router.get("/records.json", summary="The finished rows as JSON, with what judged them")
    def as_json(batch: int | None = None) -> Response:
        document = {
            "batches": [
                {
                    "started": found.started,
                    "stability": found.stability,
                    "judged_by": found.about,
                    "records": [record.to_dict() for record in finished(found.id)],
                }
                for found in page.store.batches()
                if batch in (None, found.id)
            ]
        }
        return _download(json.dumps(document, indent=1, allow_nan=False), "application/json", batch, "json")

    return router


async def _take(page: OpenPage, number: int, file: UploadFile) -> None:
    """Puts an uploaded file where a row's bytes lie, once there is room."""
    row = page.store.row(number)
    while row is not None and row.state == "expected":
        try:
            page.files.claim(row.id, row.size)
        except NoRoom:
            await asyncio.sleep(20 * _LOOK)
            row = page.store.row(number)
            continue
        with page.files.open(row.id, row.name) as stream:
            await asyncio.to_thread(shutil.copyfileobj, file.file, stream, 1 << 20)
        page.arrived(row.id)
        return


async def _said(page: OpenPage, number: int) -> FileRecord:
    row: Row | None = page.store.row(number)
    while row is not None and row.state not in _FINISHED:
        await asyncio.sleep(_LOOK)
        row = page.store.row(number)
    record = None if row is None else page.record(row)
    if record is None:
        raise HTTPException(410, "the row was removed before it was finished")
    return record


def _download(text: str, kind: str, batch: int | None, suffix: str) -> Response:
    name = "records" if batch is None else f"records_batch_{batch}"
    return Response(
        text, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}.{suffix}"'}
    )
