"""A model goes to the Hub and comes back, by huggingface_hub's own client, against a stand-in server on this machine.

The stand-in speaks what the client asks for: repository, upload modes, Git LFS (basic transfer), commit, file list and
files. The Hub's newer Xet storage is switched off for it; that, logins and rights remain the Hub's and untested.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from df_models import DualForce, StructureDiT

COMMIT = "c0ffee" + "0" * 34


class _Hub(BaseHTTPRequestHandler):
    """One repository; files of 1 MiB and more, and safetensors, go through LFS."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: object = None, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self) -> None:
        body, server = self._body(), self.server
        if self.headers.get("Authorization") != "Bearer hf_secret":
            return self._answer({"error": "Invalid credentials"}, 401)
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            server.private = asked.get("private", asked.get("visibility") == "private")
            server.name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            return self._answer({"url": f"{server.address}/{server.name}"})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            mode = lambda f: "lfs" if f["path"].endswith(".safetensors") else "regular"  # noqa: E731
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": mode(f), "shouldIgnore": False} for f in files]}
            )
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = lambda o: {"upload": {"href": f"{server.address}/lfs/{o['oid']}"}}  # noqa: E731
            return self._answer({"transfer": "basic", "objects": [{**o, "actions": upload(o)} for o in objects]})
        if path.endswith("/commit/main"):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    server.files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    server.files[value["path"]] = server.objects[value["oid"]]
            url = f"{server.address}/{server.name}/commit/{COMMIT}"
            return self._answer({"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
        self._answer({"error": f"no {path}"}, 404)

    def do_PUT(self) -> None:
        data = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.objects[oid] = data
        self._answer()

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        if path.startswith(f"/api/models/{server.name}"):
            names = [{"rfilename": name, "size": len(data)} for name, data in server.files.items()]
            info = {"_id": "1", "id": server.name, "sha": COMMIT, "siblings": names, "private": True, "tags": []}
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in server.files.items()
            ]
            return self._answer(tree if "/tree/" in path else info)
        prefix = f"/{server.name}/resolve/{COMMIT}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in server.files:
            data = server.files[path.removeprefix(prefix)]
            etag = hashlib.sha256(data).hexdigest()
            return self._answer(data, ETag=f'"{etag}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        self._answer({"error": f"no {path}"}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.daemon_threads = True
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.objects, server.name, server.private = {}, {}, "", None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


PUSH_AND_PULL = """
import sys, torch
from df_models import DualForce, UserError
model = DualForce.from_pretrained(sys.argv[1])
print(model.push_to_hub("someone/talking", token="hf_secret"))
again = DualForce.from_pretrained("someone/talking", cache_dir=sys.argv[2], token="hf_secret")
assert again.config == model.config
pairs = zip(model.state_dict().items(), again.state_dict().items())
assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
try:
    DualForce.from_pretrained("someone/nothing", cache_dir=sys.argv[2])
except UserError as error:
    print(error)
"""


def test_a_model_is_pushed_and_pulled(build, hub, tmp_path):
    model = build()
    model.set_structure_statistics(torch.arange(10.0), torch.full((10,), 2.0))
    model.save_pretrained(tmp_path / "model")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", PUSH_AND_PULL, str(tmp_path / "model"), str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    address, refusal = done.stdout.splitlines()
    assert COMMIT in address and "the Hub did not give it" in refusal
    assert set(hub.files) == {"README.md", "config.json", "model.safetensors"} and hub.private is True
    assert 'from_pretrained("someone/talking")' in hub.files["README.md"].decode()


def test_the_model_card_says_what_there_is_to_know(build, tmp_path):
    model = build(video_vae="{{ 7 * 6 }}")
    model.set_structure_statistics(torch.arange(10.0), torch.full((10,), 2.0))
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: df-models\nlicense: apache-2.0\n")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters, float32" in card
    assert "| dim | 48 |" in card and "| 9 | 9 | 2 |" in card
    assert "| video_vae | {{ 7 * 6 }} |" in card, "values are not read as a template"
    (tmp_path / "README.md").write_text("my own words")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"
    bare = build().structure
    bare.save_pretrained(tmp_path / "tower")
    card = (tmp_path / "tower" / "README.md").read_text()
    assert "StructureDiT.from_pretrained(" in card and "Statistics" not in card
    again = StructureDiT.from_pretrained(tmp_path / "tower")
    assert again.config == bare.config and torch.equal(again.slot_embedding, bare.slot_embedding)
    assert Path(tmp_path / "config.json").is_file() and DualForce.from_pretrained(tmp_path).config == model.config
