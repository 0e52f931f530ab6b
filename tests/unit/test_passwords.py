"""Password hashes: their format, and what makes two passwords one."""

import base64
import hashlib
import hmac
import re

import bcrypt
import pytest

from identity.security.passwords import hash_password, verify_password

COST = 4  # the lowest there is

# From the documentation of passlib.hash.bcrypt_sha256.
PASSLIB_VECTOR = (
    "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2"
)


def bcrypt_sha256(password: bytes, salt: str, cost: int) -> str:
    """The format as passlib documents it, version 2, by its own words and no code of ours."""
    digest = base64.b64encode(hmac.new(salt.encode(), password, hashlib.sha256).digest())
    whole = bcrypt.hashpw(digest, f"$2b${cost:02}${salt}".encode()).decode()
    return f"$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${whole.removeprefix(f'$2b${cost:02}${salt}')}"


def plain_bcrypt(password: bytes) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(COST)).decode()


def test_the_published_vector_verifies() -> None:
    assert verify_password("password", PASSLIB_VECTOR)
    assert not verify_password("passwore", PASSLIB_VECTOR)


@pytest.mark.parametrize("password", ["password", "p\u00e4ssw\u00f6rd", "\U0001f600" * 48, ""])
def test_a_hash_made_by_the_documented_format_verifies(password: str) -> None:
    stored = bcrypt_sha256(password.encode(), "n79VH.0Q2TMWmt3Oqt9uku", COST)
    assert verify_password(password, stored)
    assert not verify_password(f"{password}x", stored)


@pytest.mark.parametrize("password", ["Passw0rd!", "1!\U00010400\U00010428" + "\U0001f600" * 44])
def test_a_new_hash_is_of_the_documented_format(password: str) -> None:
    stored = hash_password(password, COST)
    found = re.fullmatch(r"\$bcrypt-sha256\$v=2,t=2b,r=4\$(.{22})\$(.{31})", stored)
    assert found
    assert stored == bcrypt_sha256(password.encode(), found[1], COST)
    assert verify_password(password, stored)


def test_one_password_has_another_hash_each_time() -> None:
    hashes = {hash_password("Passw0rd!", COST) for _ in range(10)}
    assert len(hashes) == 10


def test_a_hash_fits_its_column_and_holds_no_password() -> None:
    stored = hash_password("Passw0rd!", COST)
    assert len(stored) <= 255
    assert "Passw0rd!" not in stored


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("x" * 72 + "a", "x" * 72 + "b", id="the first 72 bytes agree"),
        pytest.param("\U0001f600" * 47 + "a", "\U0001f600" * 47 + "b", id="the first 188 do"),
        pytest.param("\U0001f600" * 18, "\U0001f600" * 19, id="one is the other's first 72 bytes"),
        pytest.param("pass\0word", "pass\0wore", id="they agree up to a NUL"),
        pytest.param("pass\0word", "pass", id="one ends at the other's NUL"),
        pytest.param("password", "Password", id="case"),
        pytest.param("password", "password ", id="trailing space"),
    ],
)
def test_two_passwords_never_verify_as_one(one: str, other: str) -> None:
    stored = hash_password(one, COST)
    assert verify_password(one, stored)
    assert not verify_password(other, stored)
    assert not verify_password(one, hash_password(other, COST))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P\u00e9nsw0rd!", "Pe\u0301nsw0rd!"),
        ("\uff30assw0rd!", "Passw0rd!"),
        ("o\ufb03ce", "office"),
        ("\u212b", "A\u030a"),
    ],
)
def test_spellings_that_nfkc_makes_one_are_one_password(one: str, other: str) -> None:
    assert verify_password(other, hash_password(one, COST))
    assert verify_password(one, hash_password(other, COST))


# Hashes of other makes


@pytest.mark.parametrize("identifier", ["2a", "2b", "2y"])
def test_plain_bcrypt_hashes_go_on_verifying(identifier: str) -> None:
    stored = plain_bcrypt(b"Passw0rd!").replace("$2b$", f"${identifier}$")
    assert verify_password("Passw0rd!", stored)
    assert not verify_password("passw0rd!", stored)


@pytest.mark.parametrize("spelling", ["P\u00e9nsw0rd!", "Pe\u0301nsw0rd!"])
def test_plain_bcrypt_hashes_verify_in_every_spelling(spelling: str) -> None:
    assert verify_password(spelling, plain_bcrypt("P\u00e9nsw0rd!".encode()))


def test_the_longest_password_that_plain_bcrypt_reads_verifies() -> None:
    assert verify_password("x" * 72, plain_bcrypt(b"x" * 72))


@pytest.mark.parametrize("password", ["x" * 73, "\U0001f600" * 19, "x" * 72 + "\0"])
def test_a_password_that_plain_bcrypt_would_truncate_is_wrong(password: str) -> None:
    assert not verify_password(password, plain_bcrypt(password.encode()[:72]))


_OURS = bcrypt_sha256(b"password", "n79VH.0Q2TMWmt3Oqt9uku", COST)
_PLAIN = bcrypt.hashpw(b"password", b"$2b$04$n79VH.0Q2TMWmt3Oqt9uku").decode()


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param("", id="empty"),
        pytest.param("password", id="no hash at all"),
        pytest.param("!", id="locked"),
        pytest.param(_OURS[:-1], id="cut short"),
        pytest.param(_OURS + "x", id="one long"),
        pytest.param(_OURS + "\n", id="trailing newline"),
        pytest.param(_OURS.replace("v=2", "v=1"), id="version 1"),
        pytest.param(_OURS.replace("v=2", "v=3"), id="version 3"),
        pytest.param(_OURS.replace("t=2b", "t=2x"), id="another bcrypt"),
        pytest.param(_OURS.replace("r=4", "r="), id="no cost"),
        pytest.param(_OURS.replace("r=4", "r=3"), id="cost below bcrypt's"),
        pytest.param(_OURS.replace("r=4", "r=32"), id="cost above bcrypt's"),
        pytest.param(_PLAIN[:-1], id="plain, cut short"),
        pytest.param(_PLAIN.replace("$04$", "$03$"), id="plain, cost below bcrypt's"),
        pytest.param(_PLAIN.replace("$04$", "$32$"), id="plain, cost above bcrypt's"),
        pytest.param(_PLAIN.replace("$2b$", "$1$"), id="another crypt"),
        pytest.param("$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g", id="argon2id"),
        pytest.param("pbkdf2_sha256$1000000$salt$aGFzaA==", id="pbkdf2"),
        pytest.param("5f4dcc3b5aa765d61d8327deb882cf99", id="bare MD5"),
    ],
)
def test_no_password_verifies_against_what_is_no_hash_of_ours(stored: str) -> None:
    assert verify_password("password", stored) is False
