"""A model hub in one process: what huggingface_hub asks of a server to upload and download small files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by id, each a mapping of file names to bytes; ``asked`` lists the requests."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.token: str | None = None
        self.large: dict[str, bytes] = {}


@contextmanager
def serving() -> Iterator[tuple[Hub, str]]:
    """Serves a hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    of: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            return self._listing()
        return self._file(body=True)

    def do_PUT(self) -> None:
        """Takes a large file, as a store of large files does."""
        self.of.asked.append(f"PUT {self.path}")
        self.of.large[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        self.of.asked.append(f"POST {self.path}")
        body = self._body()
        if self.of.token is not None and self.headers.get("Authorization") != f"Bearer {self.of.token}":
            return self._answer({"error": "Invalid user token."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.of.repositories.setdefault(name, {})
            return self._answer({"url": f"{self._here()}/{name}", "name": name, "id": name})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{self._here()}/large/{one['oid']}"}},
                }
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        name, _, action = self.path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if action == "preupload" or name.endswith("/preupload"):
            files = [
                {"path": one["path"], "uploadMode": _mode(one["path"]), "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.of.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.of.repositories[name][value["path"]] = self.of.large[value["oid"]]
        url = f"{self._here()}/{name}/commit/{COMMIT}"
        return self._answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _listing(self) -> None:
        self.of.asked.append(f"GET {self.path}")
        parts = self.path.partition("?")[0].removeprefix("/api/models/").split("/")
        name = "/".join(parts[:2])
        files = self.of.repositories.get(name)
        if files is None:
            return self._answer({"error": "Repository not found"}, 404, code="RepoNotFound")
        if "tree" in parts:
            return self._answer(
                [
                    {"type": "file", "path": path, "size": len(own), "oid": _etag(own)}
                    for path, own in files.items()
                ]
            )
        siblings = [{"rfilename": path} for path in files]
        return self._answer({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings})

    def _file(self, *, body: bool) -> None:
        self.of.asked.append(f"{self.command} {self.path}")
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.of.repositories.get(name, {}).get(rest.partition("/")[2])
        if content is None:
            return self._answer({"error": "Entry not found"}, 404, code="EntryNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def _answer(self, document: Any, status: int = 200, *, code: str | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _here(self) -> str:
        return f"http://{self.headers['Host']}"


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".pth", ".safetensors")) else "regular"


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
