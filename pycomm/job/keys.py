"""Keys that a job's ranks derive from their shared secret, which itself never crosses a wire."""

from __future__ import annotations

# hashlib's own blake2b, taken from where hashlib takes it: `import hashlib` would also map OpenSSL, 3.6 MiB in every
# rank.
from _blake2 import blake2b


def derive(secret: bytes, purpose: str, length: int = 32) -> bytes:
    """Return `length` (1 to 64) bytes that depend on the secret and the purpose, and reveal neither.

    Keyed BLAKE2b (RFC 7693). Whoever needs a key from the job's secret names a purpose of its own.
    """
    key = secret if len(secret) <= 64 else blake2b(secret).digest()
    return blake2b(purpose.encode(), key=key, digest_size=length, person=b"pycomm").digest()


def authenticate(secret: bytes, message: bytes) -> bytes:
    """Return the 32-byte code by which a peer proves, for one connection of the data plane, that it has the secret."""
    return blake2b(message, key=derive(secret, "data plane"), digest_size=32, person=b"pycomm").digest()


def curve_pair(secret: bytes, role: str) -> tuple[bytes, bytes]:
    """Return the (public, private) CURVE keys, in Z85, of the hub (role "hub") or of every rank (role "rank")."""
    import zmq
    from zmq.utils import z85

    private: bytes = z85.encode(derive(secret, f"control plane: {role}"))
    return zmq.curve_public(private), private
