"""Content Credentials (C2PA): a signed statement inside a video's file that its pictures were generated.

Anyone can read it, and sees if the file was changed after it was signed: https://opensource.contentauthenticity.org.
Signing is `c2pa-python`'s (extra ``df-infer[c2pa]``); the certificate and its key are the publisher's own.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from df_models.errors import UserError
from df_models.files import atomic_path, require_file

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for what a trained model made; here every picture is, also where the sound is a recording."""
_VIDEO = "video/mp4"
_PROBE = "image/png"
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
"""A PNG of one pixel, which is signed first to see whether the certificate will do."""


class Credentials:
    """Signs finished MP4 files.

    Attributes:
        fingerprint: SHA-256 of the certificate, hexadecimal.
    """

    def __init__(self, chain: bytes, key: bytes, algorithm: str, fingerprint: str) -> None:
        self._chain, self._key, self._algorithm = chain, key, algorithm
        self.fingerprint = fingerprint

    @classmethod
    def from_files(cls, certificate: Path, key: Path) -> Self:
        """Read the certificate chain, the signer's own first, and its private key, both PEM; try them once.

        Raises:
            UserError: `c2pa-python` is missing, a file cannot be read, the key is another certificate's or needs a
                password, the certificate is not valid today, or C2PA does not allow it.
        """
        try:
            import c2pa  # noqa: F401
            from cryptography import x509
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import hashes, serialization
        except ModuleNotFoundError as error:
            raise UserError('signing needs c2pa-python; install it with: pip install "df-infer[c2pa]"') from error
        for path in (certificate, key):
            if path.is_dir():
                raise UserError(f"{path} is a directory; give a PEM file")
            require_file(path)
        try:
            chain, secret = certificate.read_bytes(), key.read_bytes()
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
        try:
            own = x509.load_pem_x509_certificates(chain)[0]
            owner = own.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UserError(f"{certificate} holds no PEM certificates") from error
        try:
            private = serialization.load_pem_private_key(secret, password=None)
        except TypeError as error:
            raise UserError(f"the key in {key} has a password; give it without one, readable by you alone") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UserError(f"{key} holds no PEM private key that can be used here") from error
        if private.public_key() != owner:
            raise UserError(
                f"the key in {key} is not that of the first certificate in {certificate}; the signer's own comes first"
            )
        _check_dates(own, certificate)
        pkcs8 = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        made = cls(chain, pkcs8, _algorithm(private, key), own.fingerprint(hashes.SHA256()).hex())
        made._try(certificate)
        return made

    def sign(self, path: Path) -> None:
        """Replace the MP4 at ``path`` by its signed copy.

        Raises:
            UserError: it cannot be signed; the file is as it was.
        """
        with atomic_path(path) as signed, path.open("rb") as source, signed.open("w+b") as target:
            try:
                self._sign(_VIDEO, source, target)
            except Exception as error:
                raise UserError(f"the video could not be signed: {error}") from error

    def _sign(self, kind: str, source: Any, target: Any) -> None:
        import c2pa

        info = c2pa.C2paSignerInfo(self._algorithm.encode(), self._chain, self._key, None)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(_manifest()) as builder:
            builder.sign(signer, kind, source, target)

    def _try(self, certificate: Path) -> None:
        try:
            self._sign(_PROBE, io.BytesIO(_PIXEL), io.BytesIO())
        except Exception as error:
            raise UserError(
                f"C2PA does not take the certificate in {certificate} ({error}); it needs one that a certificate "
                "authority issued, for signing (digitalSignature, emailProtection or documentSigning), with the chain"
            ) from error


def credentials(certificate: str | Path | None, key: str | Path | None) -> Credentials | None:
    """Return what signs, or None where neither is given.

    Raises:
        UserError: only one of them is given, or as :meth:`Credentials.from_files`.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UserError("--c2pa-certificate and --c2pa-key go together: the chain and the private key, PEM files")
    return Credentials.from_files(Path(certificate), Path(key))


def add_signing(options: argparse._ArgumentGroup) -> None:
    """Add the options that :func:`credentials` reads."""
    options.add_argument(
        "--c2pa-certificate",
        type=Path,
        metavar="CHAIN.pem",
        help="sign the video as generated (C2PA) with this certificate, its authority's after it (PEM), and --c2pa-key "
        "(default: none, not signed)",
    )
    options.add_argument(
        "--c2pa-key",
        type=Path,
        metavar="KEY.pem",
        help="the certificate's private key (PEM, no password; default: none)",
    )


def _manifest() -> dict[str, Any]:
    created = {"action": "c2pa.created", "digitalSourceType": GENERATED}
    return {
        "claim_generator_info": [{"name": "DualForce df-infer", "version": metadata.version("df-infer")}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _check_dates(own: Any, certificate: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    first, last = own.not_valid_before_utc, own.not_valid_after_utc
    if not first <= now <= last:
        raise UserError(
            f"the certificate in {certificate} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, not today"
        )


def _algorithm(private: Any, key: Path) -> str:
    """C2PA's name of the signature that goes with a kind of key (C2PA specification 2.2, "Digital Signatures")."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey):
        with contextlib.suppress(KeyError):
            return curves[private.curve.name]
    raise UserError(f"the key in {key} is of a kind that C2PA does not sign with; take EC (P-256), RSA or Ed25519")
