"""Videos that say of themselves, signed, that they were generated."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from df_infer import cli
from df_infer.credentials import GENERATED, Credentials, credentials
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_video, write_video

DAY = datetime.timedelta(days=1)
Pair = tuple[Path, Path]


def issued(key: Any, authority: Any, ca: bool, first_day: int, last_day: int) -> x509.Certificate:
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests")])
        for of in ("authority" if ca else "publisher", "authority")
    ]
    now = datetime.datetime.now(datetime.UTC)
    uses = {"key_encipherment": False, "data_encipherment": False, "key_agreement": False, "content_commitment": False}
    uses |= {"encipher_only": False, "decipher_only": False, "key_cert_sign": ca, "crl_sign": ca}
    builder = (
        x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
        .not_valid_before(now + first_day * DAY)
        .not_valid_after(now + last_day * DAY)
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.KeyUsage(digital_signature=True, **uses), True)
    )
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return builder.sign(authority, hashes.SHA256())


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    def make(
        key: Any = None,
        first_day: int = -1,
        last_day: int = 30,
        password: bytes | None = None,
        traditional: bool = False,
    ) -> Pair:
        key, authority = key or ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        chain = [issued(key, authority, False, first_day, last_day), issued(authority, authority, True, -1, 30)]
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        files = tmp_path / "chain.pem", tmp_path / "key.pem"
        files[0].write_bytes(b"".join(certificate.public_bytes(pem) for certificate in chain))
        form = serialization.PrivateFormat
        kind = form.TraditionalOpenSSL if traditional else form.PKCS8
        files[1].write_bytes(key.private_bytes(pem, kind, hidden))
        return files

    return make


def told(video: Path) -> dict[str, Any]:
    with c2pa.Reader(str(video)) as reader:
        return json.loads(reader.json())


KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA, as PKCS#1": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_signed_video_says_that_it_was_generated_and_shows_if_it_was_changed(
    pair: Callable[..., Pair], tmp_path: Path, kind: str
):
    signer = Credentials.from_files(*pair(KEYS[kind](), traditional="PKCS#1" in kind))
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    plain, video = tmp_path / "plain.mp4", tmp_path / "video.mp4"
    write_video(plain, frames)
    write_video(video, frames, finished=signer.sign)
    found = told(video)
    assert found["validation_state"] == "Valid"
    (manifest,) = found["manifests"].values()
    (actions,) = [
        part["data"]["actions"] for part in manifest["assertions"] if part["label"].startswith("c2pa.actions")
    ]
    assert [(action["action"], action["digitalSourceType"]) for action in actions] == [("c2pa.created", GENERATED)]
    assert np.array_equal(read_video(video)[0], read_video(plain)[0]), "the pictures are as they were"

    changed = bytearray(video.read_bytes())
    changed[changed.index(b"mdat") + 40] ^= 1
    video.write_bytes(changed)
    assert told(video)["validation_state"] == "Invalid"


def test_a_video_that_cannot_be_signed_is_not_there(pair: Callable[..., Pair], tmp_path: Path, monkeypatch):
    signer = Credentials.from_files(*pair())
    monkeypatch.setattr(Credentials, "_sign", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="could not be signed"):
        write_video(tmp_path / "video.mp4", np.zeros((1, 32, 32, 3), np.uint8), finished=signer.sign)
    assert {path.suffix for path in tmp_path.iterdir()} == {".pem"}


def test_what_will_not_do_is_told_before_any_work(pair: Callable[..., Pair], tmp_path: Path):
    chain, key = pair()
    with pytest.raises(UserError, match="go together"):
        credentials(chain, None)
    assert credentials(None, None) is None
    for certificate, secret, why in (
        (tmp_path / "none.pem", key, "none.pem"),
        (chain, tmp_path, "is a directory"),
        (key, key, "no PEM certificates"),
        (chain, chain, "no PEM private key"),
    ):
        with pytest.raises(UserError, match=why):
            credentials(certificate, secret)
    other = ec.generate_private_key(ec.SECP256R1())
    for changes, why in (
        ({"last_day": 0, "first_day": -9}, "not today"),
        ({"first_day": 3}, "not today"),
        ({"password": b"secret"}, "password"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "does not sign with"),
    ):
        with pytest.raises(UserError, match=why):
            credentials(*pair(**changes))
    chain, key = pair()
    key.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(UserError, match="not that of the first certificate"):
        credentials(chain, key)


def test_a_certificate_that_c2pa_does_not_allow_is_told(pair: Callable[..., Pair]):
    chain, key = pair()
    chain.write_bytes(chain.read_bytes().split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n")
    signer = Credentials.from_files(chain, key)  # a chain without its authority is taken
    assert len(signer.fingerprint) == 64
    own = ec.generate_private_key(ec.SECP256R1())
    chain.write_bytes(issued(own, own, True, -1, 30).public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(UserError, match="C2PA does not take"):
        credentials(chain, key)


def test_generate_signs_one_clip_and_a_list(files, pair: Callable[..., Pair], tmp_path: Path, monkeypatch, capsys):
    vae = random_tiny_vae()
    monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda name: vae)
    chain, key = map(str, pair())
    run = ["generate", "--run", str(files.run), "--quiet"]
    signed = ["--c2pa-certificate", chain, "--c2pa-key", key]
    one, out = tmp_path / "one.mp4", tmp_path / "out"
    inputs = ["--image", str(files.image), "--audio", str(files.audio)]
    assert cli.main([*run, *inputs, "--frames", "5", "--out", str(one), *signed]) == 0
    assert told(one)["validation_state"] == "Valid"

    (tmp_path / "list.csv").write_text(f"image,audio,out\n{files.image},{files.audio},a.mp4\n")
    many = [*run, "--manifest", str(tmp_path / "list.csv"), "--out", str(out)]
    for options, made in (([], 1), (signed, 1), (signed, 0)):  # what was made without a signature is made again
        assert cli.main([*many, *options]) == 0
        assert f"{made} clips made, {1 - made} were there" in capsys.readouterr().out
    assert told(out / "a.mp4")["validation_state"] == "Valid"

    assert cli.main([*run, *inputs, "--structure-out", str(tmp_path / "m.npz"), *signed]) == 2
    assert "--out" in capsys.readouterr().err
