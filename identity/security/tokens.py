"""Verification tokens: derived from a row's id and a secret key, never stored.

A token is `base64url(id ‖ HMAC-SHA256(key, context ‖ id))`: 16 random bytes and 32 bytes of
signature, 64 characters without padding. Whoever has the database, the queue of mails and the
logs, but no key, cannot make one.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from identity.errors import TokenInvalid

ID_BYTES = 16

_CONTEXT = b"identity/verify-email/v1\0"
_FINGERPRINT_CONTEXT = b"identity/key-fingerprint/v1\0"
_FINGERPRINT_BYTES = 8
_TOKEN = re.compile(r"[A-Za-z0-9_-]{64}", re.ASCII)


class _Key:
    """One secret key. What all its signatures begin with is digested once: that is quicker, and
    unlike hmac.digest() the rest keeps its thread's turn.
    """

    def __init__(self, secret: str) -> None:
        self._token = hmac.new(secret.encode(), _CONTEXT, hashlib.sha256)
        fingerprint = hmac.new(secret.encode(), _FINGERPRINT_CONTEXT, hashlib.sha256)
        self.fingerprint: Final = fingerprint.digest()[:_FINGERPRINT_BYTES].hex()

    def sign(self, token_id: bytes) -> bytes:
        begun = self._token.copy()
        begun.update(token_id)
        return begun.digest()


class TokenSigner:
    """Makes and opens tokens under a list of keys, newest first.

    The first key signs new tokens; every key opens its own, so that links in mailboxes survive a
    rotation until their life is over.
    """

    def __init__(
        self, keys: Sequence[str], random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        if not keys:
            raise ValueError("at least one key is needed")
        self._random_bytes = random_bytes
        self._keys = [_Key(secret) for secret in keys]
        self._by_fingerprint = {key.fingerprint: key for key in reversed(self._keys)}

    @property
    def fingerprint(self) -> str:
        """Names the signing key, 16 hex digits, without telling anything about it."""
        return self._keys[0].fingerprint

    def new_id(self) -> bytes:
        """A fresh id, 16 random bytes."""
        return self._random_bytes(ID_BYTES)

    def token(self, token_id: bytes, fingerprint: str) -> str:
        """The token of an id: the same at each call while the key of that fingerprint is held.

        When that key is gone, the first key signs instead, so that a mail can still be sent.
        """
        key = self._by_fingerprint.get(fingerprint, self._keys[0])
        return base64.urlsafe_b64encode(token_id + key.sign(token_id)).decode()

    def open(self, token: str) -> bytes:
        """The id that a token carries. Raises TokenInvalid, before any look into the database.

        Only the canonical spelling opens: 48 bytes fill 64 characters to the last bit, and the
        alphabet is checked first, because base64 decoders skip what they do not know.
        """
        if not _TOKEN.fullmatch(token):
            raise TokenInvalid
        raw = base64.urlsafe_b64decode(token)
        token_id, signature = raw[:ID_BYTES], raw[ID_BYTES:]
        genuine = False
        for key in self._keys:  # every key, also after a match: the time tells nothing
            genuine |= hmac.compare_digest(signature, key.sign(token_id))
        if not genuine:
            raise TokenInvalid
        return token_id
