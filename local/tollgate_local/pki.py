"""Certificates and kubeconfigs of one cluster: one CA, made anew at each `up`, so that nothing ever expires unseen.

Only the key that signs ServiceAccount tokens is kept: tokens and Secrets of the last time stay good.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "service_account_key"]

_VALID = datetime.timedelta(days=365)


class Authority:
    """A certificate authority that writes into one folder: `ca.crt`, and per name `NAME.crt` and `NAME.key`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tollgate-local-ca")])
        builder = _builder(self._name, self._name, self._key.public_key())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._pem = certificate.public_bytes(serialization.Encoding.PEM)
        _write(folder / "ca.crt", self._pem, 0o644)

    def issue(self, name: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """A certificate for `user` in `groups`, for client and server use, good for the names and addresses `hosts`."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = _builder(subject, self._name, key.public_key()).add_extension(both, critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(paths[1], _private_pem(key), 0o600)
        return paths

    def kubeconfig(self, path: Path, server: str, name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with everything inside (it can be copied), for a certificate that is issued here."""
        certificate, key = self.issue(name, user, groups)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "tollgate-local", "cluster": {"server": server, "certificate-authority-data": _b64(self._pem)}}
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _b64(certificate.read_bytes()),
                        "client-key-data": _b64(key.read_bytes()),
                    },
                }
            ],
            "contexts": [{"name": "tollgate-local", "context": {"cluster": "tollgate-local", "user": user}}],
            "current-context": "tollgate-local",
        }
        _write(path, json.dumps(config, indent=1).encode(), 0o600)  # JSON is YAML
        return path


def service_account_key(path: Path) -> Path:
    """The key that signs ServiceAccount tokens; made once per state folder."""
    if not path.exists():
        _write(path, _private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
    return path


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # a clock that was set back must not lock us out
        .not_valid_after(now + _VALID)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _write(path: Path, data: bytes, mode: int) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
    unfinished.rename(path)
