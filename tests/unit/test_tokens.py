"""Verification tokens: made from an id and a key, and opened again."""

import base64
import hashlib
import hmac
import re
import string

import pytest

from identity.errors import TokenInvalid
from identity.security.tokens import TokenSigner

OLD = "old key, of at least 32 characters"
NEW = "new key, of at least 32 characters"
OTHER = "another key of at least 32 characters"

ID = bytes(range(16))
OTHER_ID = bytes(range(16, 32))
ALPHABET = string.ascii_letters + string.digits + "-_"


def token_of(key: str, token_id: bytes = ID) -> str:
    signer = TokenSigner([key])
    return signer.token(token_id, signer.fingerprint)


def test_a_token_is_the_id_and_its_hmac_sha256_in_unpadded_base64url() -> None:
    signature = hmac.new(OLD.encode(), b"identity/verify-email/v1\0" + ID, hashlib.sha256)
    expected = base64.urlsafe_b64encode(ID + signature.digest()).rstrip(b"=").decode()
    assert token_of(OLD) == expected


@pytest.mark.parametrize("token_id", [ID, bytes(16), b"\xff" * 16])
def test_a_token_is_64_characters_and_opens_to_its_id(token_id: bytes) -> None:
    token = token_of(OLD, token_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]{64}", token)
    assert TokenSigner([OLD]).open(token) == token_id


def test_the_same_id_always_has_the_same_token() -> None:
    assert token_of(OLD) == token_of(OLD)


def test_new_ids_are_16_random_bytes() -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return ID[:count]

    assert TokenSigner([OLD], random_bytes).new_id() == ID
    assert asked == [16]
    assert len({TokenSigner([OLD]).new_id() for _ in range(100)}) == 100


def test_a_signer_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        TokenSigner([])


# What does not open


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param("A" * 64, id="unsigned"),
        pytest.param(token_of(OLD)[:-1], id="one short"),
        pytest.param(token_of(OLD)[1:], id="first one missing"),
        pytest.param(token_of(OLD) + "A", id="one long"),
        pytest.param(token_of(OLD).swapcase(), id="other case"),
        pytest.param(token_of(OLD).lower(), id="lower case"),
        pytest.param(token_of(OLD) + "=", id="padded"),
        pytest.param(token_of(OLD) + "==", id="padded twice"),
        pytest.param(token_of(OLD)[:-1] + "=", id="padding for the last"),
        pytest.param(" " + token_of(OLD), id="leading space"),
        pytest.param(token_of(OLD) + " ", id="trailing space"),
        pytest.param(token_of(OLD) + "\n", id="trailing newline"),
        pytest.param(token_of(OLD)[:32] + "\n" + token_of(OLD)[32:], id="folded"),
        pytest.param(token_of(OLD)[:32] + "." + token_of(OLD)[32:], id="skipped by decoders"),
        pytest.param(token_of(OLD)[:-1] + "\0", id="NUL"),
        pytest.param(token_of(OLD)[:-1] + "\u00e9", id="non-ASCII letter"),
        pytest.param(token_of(OLD)[:-1] + "\uff21", id="full-width letter"),
        pytest.param("\u0661" * 64, id="Arabic digits"),
        pytest.param("?token=" + token_of(OLD), id="with its parameter"),
        pytest.param("A" * 100_000, id="huge"),
        pytest.param(token_of(OTHER), id="of a key that is not ours"),
        pytest.param(token_of(OLD, ID)[:22] + token_of(OLD, OTHER_ID)[22:], id="halves, by text"),
    ],
)
def test_what_is_not_exactly_a_token_of_ours_is_invalid(damaged: str) -> None:
    with pytest.raises(TokenInvalid):
        TokenSigner([OLD]).open(damaged)


def test_an_id_with_the_signature_of_another_is_invalid() -> None:
    theirs = base64.urlsafe_b64decode(token_of(OLD, OTHER_ID))
    joined = base64.urlsafe_b64encode(ID + theirs[16:]).decode()
    with pytest.raises(TokenInvalid):
        TokenSigner([OLD]).open(joined)


def test_a_signature_for_another_purpose_is_invalid() -> None:
    signature = hmac.digest(OLD.encode(), b"identity/reset-password/v1\0" + ID, "sha256")
    with pytest.raises(TokenInvalid):
        TokenSigner([OLD]).open(base64.urlsafe_b64encode(ID + signature).decode())


def test_changing_any_one_character_makes_a_token_invalid() -> None:
    signer = TokenSigner([OLD])
    token = token_of(OLD)
    opened = []
    for place, genuine in enumerate(token):
        for other in ALPHABET.replace(genuine, ""):
            changed = token[:place] + other + token[place + 1 :]
            try:
                signer.open(changed)
            except TokenInvalid:
                continue
            opened.append(changed)
    assert opened == []


def test_the_refusal_does_not_repeat_the_token() -> None:
    token = token_of(OTHER)
    with pytest.raises(TokenInvalid) as caught:
        TokenSigner([OLD]).open(token)
    assert str(caught.value) == "Invalid or expired verification token"
    assert token not in repr(caught.value)


# Rotation of keys


def test_the_first_key_signs() -> None:
    signer = TokenSigner([NEW, OLD])
    assert signer.fingerprint == TokenSigner([NEW]).fingerprint
    assert signer.token(ID, signer.fingerprint) == token_of(NEW)


@pytest.mark.parametrize("key", [NEW, OLD, OTHER])
def test_every_key_opens_its_tokens(key: str) -> None:
    assert TokenSigner([NEW, OLD, OTHER]).open(token_of(key)) == ID


def test_a_mail_sent_again_after_a_rotation_bears_the_same_link() -> None:
    before = TokenSigner([OLD])
    fingerprint = before.fingerprint  # as the row keeps it
    after = TokenSigner([NEW, OLD])
    assert after.token(ID, fingerprint) == before.token(ID, fingerprint)


def test_a_row_whose_key_is_gone_gets_a_link_signed_by_the_first() -> None:
    fingerprint = TokenSigner([OLD]).fingerprint
    token = TokenSigner([NEW, OTHER]).token(ID, fingerprint)
    assert token == token_of(NEW)
    assert TokenSigner([NEW, OTHER]).open(token) == ID


def test_a_token_of_a_removed_key_is_invalid() -> None:
    with pytest.raises(TokenInvalid):
        TokenSigner([NEW]).open(token_of(OLD))


def test_a_key_that_stands_twice_is_no_harm() -> None:
    signer = TokenSigner([NEW, NEW])
    assert signer.open(signer.token(ID, signer.fingerprint)) == ID


# Fingerprints


def test_a_fingerprint_is_16_hex_digits_and_the_same_at_every_start() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", TokenSigner([OLD]).fingerprint)
    assert TokenSigner([OLD]).fingerprint == TokenSigner([OLD]).fingerprint


def test_every_key_has_a_fingerprint_of_its_own() -> None:
    assert len({TokenSigner([key]).fingerprint for key in (OLD, NEW, OTHER)}) == 3


@pytest.mark.parametrize("key", [OLD, "0123456789abcdef" * 2])
def test_a_fingerprint_holds_no_part_of_its_key(key: str) -> None:
    fingerprint = TokenSigner([key]).fingerprint
    digest = hashlib.sha256(key.encode()).hexdigest()
    for revealing in (key, key.encode().hex(), digest):
        assert fingerprint not in revealing
        assert revealing not in fingerprint


def test_a_fingerprint_signs_nothing() -> None:
    """It is stored: were it the signature of some id, the database alone would make a link."""
    fingerprint = bytes.fromhex(TokenSigner([OLD]).fingerprint)
    assert fingerprint not in base64.urlsafe_b64decode(token_of(OLD))
    empty = hmac.digest(OLD.encode(), b"identity/verify-email/v1\0", "sha256")
    assert fingerprint not in empty
