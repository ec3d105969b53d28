"""A stand-in for the Hugging Face Hub on this machine: models only, in memory, no rights."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Tree = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Serves at `url`; `repositories` holds name -> path -> content of the newest commit.

    Every file is uploaded inside the commit itself, so that neither LFS nor Xet is needed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Tree] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def commit_of(tree: Tree) -> str:
    """The name of a state of a repository."""
    return hashlib.sha1(repr(sorted(tree.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None: ...

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, path):
                with self.server.lock:
                    return method(self, body, *found.groups())
        return self.fail("EntryNotFound")

    do_GET = do_POST = do_HEAD = answer  # noqa: N815 (names of the standard library)

    def send(self, content: Any, code: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, error: str) -> None:
        self.send({"error": error}, 404, X_Error_Code=error)

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        exists = name in self.server.repositories
        self.server.repositories.setdefault(name, {})
        self.send({"url": f"{self.server.url}/{name}", "name": name}, 409 if exists else 200)

    def who(self, _: bytes) -> None:
        self.send({"name": "tester", "type": "user", "orgs": []})

    def validate(self, _: bytes) -> None:
        self.send({"errors": [], "warnings": []})

    def model(self, body: bytes, name: str, action: str | None = None) -> None:
        tree = self.server.repositories.get(name)
        if tree is None:
            return self.fail("RepoNotFound")
        if action == "preupload":
            plan = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            asked = json.loads(body)["files"]
            return self.send({"files": [{"path": each["path"], **plan} for each in asked]})
        if action == "commit":
            return self.commit(name, tree, body)
        if action == "tree":
            entry = {"type": "file", "size": 0, "oid": "0"}
            return self.send([{**entry, "path": path} for path in tree])
        files = [{"rfilename": path} for path in tree]
        return self.send({"id": name, "sha": commit_of(tree), "siblings": files})

    def commit(self, name: str, tree: Tree, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                tree[value["path"]] = base64.b64decode(value["content"])
        sha = commit_of(tree)
        self.send({"commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"})

    def resolve(self, _: bytes, name: str, path: str) -> None:
        tree = self.server.repositories.get(name)
        if tree is None:
            return self.fail("RepoNotFound")
        if path not in tree:
            return self.fail("EntryNotFound")
        etag = hashlib.sha1(tree[path]).hexdigest()
        return self.send(tree[path], X_Repo_Commit=commit_of(tree), ETag=f'"{etag}"')


_REPOSITORY = r"([^/]+/[^/]+)"
ROUTES = (
    (r"/api/repos/create", _Handler.create),
    (r"/api/whoami-v2", _Handler.who),
    (r"/api/validate-yaml", _Handler.validate),
    (rf"/api/models/{_REPOSITORY}/(preupload|commit|tree|revision)/.*", _Handler.model),
    (rf"/api/models/{_REPOSITORY}", _Handler.model),
    (rf"/{_REPOSITORY}/resolve/[^/]+/(.+)", _Handler.resolve),
)
"""Pattern of the path -> what answers, given the body and the pattern's groups."""
