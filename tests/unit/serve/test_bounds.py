"""The page takes so much and no more, and says so."""

from __future__ import annotations

from effort_finetune.serve.page_limits import PageLimits


def test_a_file_that_is_too_large_has_a_row_that_says_so(visit):
    with visit(file_bytes=1000) as visitor:
        (row,) = visitor.announce({"large.mp4": b"x" * 1001})
        shown = visitor.client.get(f"/rows/{row}").json()
        assert shown["state"] == "refused"
        assert shown["note"].startswith("too large")
        assert visitor.send(row, b"x" * 1001) == 413


def test_a_body_is_what_was_announced(visit, tmp_path):
    with visit(judge=False) as visitor:
        for sent in (b"", b"12", b"1234", b"1" * 5_000_000):
            (row,) = visitor.announce({f"{len(sent)}.png": b"123"})
            assert visitor.send(row, sent) == 400
            assert visitor.client.get(f"/rows/{row}").json()["state"] == "expected"
        assert list((tmp_path / "page" / "incoming").iterdir()) == []
        assert visitor.send(row, b"123") == 204
        assert visitor.send(row, b"123") == 409
        assert visitor.send(row + 1, b"123") == 404


def test_a_body_without_a_length_is_counted(visit):
    with visit(file_bytes=1000, message_bytes=50_000) as visitor:
        pieces = iter([b"x" * 600] * 3)
        answer = visitor.client.post(
            "/predict", content=pieces, headers={"content-type": "multipart/form-data; boundary=a"}
        )
        assert answer.status_code == 413
        answer = visitor.client.post("/batches", content=iter([b" " * 60_000]))
        assert answer.status_code == 413


def test_files_of_finished_rows_make_room_for_new_ones(visit, pictures):
    content = [file.read_bytes() for file in pictures[:3]]
    room = max(map(len, content)) * 2
    with visit(kept_bytes=room, file_bytes=room) as visitor:
        rows = []
        for number, one in enumerate(content):
            rows += visitor.drop({f"{number}.png": one})
            visitor.wait(rows)
        kept = [row["kept"] for row in visitor.wait(rows)]
        assert kept == [False, True, True]


def test_without_room_a_file_waits(visit):
    with visit(judge=False, kept_bytes=10, file_bytes=10) as visitor:
        first, second = visitor.announce({"a.png": b"1" * 8, "b.png": b"2" * 8})
        assert visitor.send(first, b"1" * 8) == 204
        answer = visitor.client.put(f"/rows/{second}/file", content=b"2" * 8)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert visitor.client.get(f"/rows/{second}").json()["state"] == "expected"


def test_too_many_are_refused_whole(visit):
    with visit(judge=False, unfinished=2, rows=3) as visitor:
        visitor.announce({"a.png": b"1", "b.png": b"2"})
        answer = visitor.client.post("/batches", json={"files": [{"name": "c.png", "size": 1}]})
        assert answer.status_code == 409
        assert "too many files at once" in answer.json()["detail"]
        assert len(visitor.client.get("/state").json()["rows"]) == 2


def test_what_is_no_announcement_is_refused(visit):
    with visit(judge=False) as visitor:
        one = {"name": "a", "size": 1}
        lists = ([], [one | {"name": ""}], [one | {"size": -1}], [one | {"more": 1}], "a")
        for wrong in ({}, {"files": [one], "more": 1}, *({"files": files} for files in lists)):
            assert visitor.client.post("/batches", json=wrong).status_code == 422
        assert visitor.client.put("/rows/1/label", json={"label": "unsure"}).status_code == 422


def test_names_cannot_leave_the_folder_or_repaint_the_page(visit, tmp_path):
    with visit(judge=False) as visitor:
        names = ["../../x.png", "a\u202eb.png", "x" * 3000 + ".png", "a.p/../../ng"]
        rows = visitor.drop(dict.fromkeys(names, b"1"))
        shown = [visitor.client.get(f"/rows/{row}").json()["name"] for row in rows]
        assert "\\u202e" in shown[1]
        assert max(map(len, shown)) < 1100
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        inside = {path.parent for path in files if path.read_bytes() == b"1"}
        assert inside == {tmp_path / "page" / "incoming"}


def test_the_bounds_that_ship_are_bounds():
    limits = PageLimits()
    assert 0 < limits.file_bytes <= limits.kept_bytes
    assert 0 < limits.unfinished <= limits.rows
