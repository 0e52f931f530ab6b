"""The rules for a registration, each with its reason and its sentence."""

import traceback
import unicodedata
from uuid import UUID

import pytest

from identity.errors import InvalidFields
from identity.schemas import Registration

PASSWORD = "Passw0rd!"
REQUEST_ID = "0b1cfa2e-3b1f-4d29-9b5c-0d4a6f2a7c11"

USERNAME_TOO_SHORT = ("username", "TOO_SHORT", "string should have at least 3 characters")
USERNAME_TOO_LONG = ("username", "TOO_LONG", "string should have at most 20 characters")
EMAIL_TOO_LONG = ("email", "TOO_LONG", "string should have at most 254 characters")
PASSWORD_TOO_SHORT = ("password", "TOO_SHORT", "string should have at least 8 characters")
PASSWORD_TOO_LONG = ("password", "TOO_LONG", "string should have at most 48 characters")
NO_UPPERCASE = ("password", "NO_UPPERCASE", "password must contain at least one uppercase letter")
NO_LOWERCASE = ("password", "NO_LOWERCASE", "password must contain at least one lowercase letter")
NO_DIGIT = ("password", "NO_DIGIT", "password must contain at least one number")
NO_SPECIAL = ("password", "NO_SPECIAL", "password must contain at least one special character")

RESERVED = (
    "admin administrator root system support help security abuse postmaster webmaster hostmaster "
    "noreply no-reply identity null undefined".split()
)

# A local part of 64 octets and a domain of three long labels: as long as SMTP carries.
LONGEST_EMAIL = f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.org"


def registration(
    username: str = "alice",
    email: str = "alice@example.org",
    password: str = PASSWORD,
    request_id: str = "",
) -> Registration:
    return Registration.checked(
        username=username, email=email, password=password, request_id=request_id
    )


def broken(**fields: str) -> list[tuple[str, str, str]]:
    """Every broken rule of a registration that is in order but for these fields."""
    with pytest.raises(InvalidFields) as caught:
        registration(**fields)
    return [(found.field, found.reason, found.description) for found in caught.value.violations]


def reasons(**fields: str) -> list[tuple[str, str]]:
    return [(field, reason) for field, reason, _ in broken(**fields)]


# Username


@pytest.mark.parametrize("username", ["abc", "a" * 20, "A.b_c-9", "...", "123", "Admin1"])
def test_a_username_within_the_rules_is_kept_as_typed(username: str) -> None:
    assert registration(username=username).username == username


def test_usernames_that_differ_only_in_case_are_compared_as_one() -> None:
    assert registration(username="Al.ICE").username_key == "al.ice"


@pytest.mark.parametrize("username", ["", "a", "ab"])
def test_a_username_below_three_characters_is_too_short(username: str) -> None:
    assert broken(username=username) == [USERNAME_TOO_SHORT]


def test_a_username_above_twenty_characters_is_too_long() -> None:
    assert broken(username="a" * 21) == [USERNAME_TOO_LONG]


@pytest.mark.parametrize(
    "username",
    [
        pytest.param("ali\0ce", id="NUL"),
        pytest.param("ali\x1bce", id="escape"),
        pytest.param("ali\x85ce", id="next line"),
        pytest.param("alice\n", id="trailing newline"),
        pytest.param("alice\r\n", id="trailing CR LF"),
        pytest.param("al\u200bice", id="zero-width space"),
        pytest.param("al\u200dice", id="zero-width joiner"),
        pytest.param("\ufeffalice", id="byte order mark"),
        pytest.param("al\u202eice", id="right-to-left override"),
        pytest.param("al\u200fice", id="right-to-left mark"),
        pytest.param("\u0430lice", id="Cyrillic a"),
        pytest.param("al\u0131ce", id="dotless i"),
        pytest.param("\u212aelvin", id="Kelvin sign, which folds to an ASCII k"),
        pytest.param("alice\uff11", id="full-width digit"),
        pytest.param("alice\u0661", id="Arabic digit"),
        pytest.param("alic\u00e9", id="accent"),
        pytest.param("al ice", id="space"),
        pytest.param(" alice", id="leading space"),
        pytest.param("al@ice", id="at sign"),
        pytest.param("<b>x</b>", id="markup"),
    ],
)
def test_a_username_with_any_other_character_is_refused(username: str) -> None:
    assert reasons(username=username) == [("username", "BAD_CHARACTER")]


@pytest.mark.parametrize("username", RESERVED)
def test_reserved_usernames_are_refused_in_any_case(username: str) -> None:
    for spelling in (username, username.upper(), username.title(), username.swapcase()):
        assert reasons(username=spelling) == [("username", "RESERVED")]


def test_a_look_alike_of_a_reserved_username_is_refused_for_its_characters() -> None:
    assert reasons(username="\u0430dmin") == [("username", "BAD_CHARACTER")]


# Address


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("alice@example.org", "alice@example.org"),
        ("ALICE@EXAMPLE.ORG", "alice@example.org"),
        ("A.l.Ice+Tag+2@Example.Org", "a.l.ice+tag+2@example.org"),
        ("!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~@example.org"),
        ("a=?b?=@example.org", "a=?b?=@example.org"),
        ("alice@B\u00dcCHER.org", "alice@xn--bcher-kva.org"),
        ("alice@bu\u0308cher.org", "alice@xn--bcher-kva.org"),
        ("alice@XN--BCHER-KVA.org", "alice@xn--bcher-kva.org"),
        (f"{'a' * 64}@example.org", f"{'a' * 64}@example.org"),
    ],
)
def test_an_address_is_stored_in_lower_case_and_ascii(typed: str, stored: str) -> None:
    assert registration(email=typed).email == stored


def test_an_address_of_254_octets_is_accepted() -> None:
    assert len(LONGEST_EMAIL) == 254
    assert registration(email=LONGEST_EMAIL).email == LONGEST_EMAIL


def test_an_address_of_255_octets_is_too_long() -> None:
    assert broken(email=LONGEST_EMAIL.replace(".org", "d.org")) == [EMAIL_TOO_LONG]


def test_an_address_of_254_characters_that_are_more_octets_is_too_long() -> None:
    domain = ".".join(["\u00fc" * 30] * 6)
    email = f"{'a' * 64}@{domain}.org"
    assert len(email) == 254  # characters; 434 octets in UTF-8, 290 in ASCII
    assert broken(email=email) == [EMAIL_TOO_LONG]


@pytest.mark.parametrize(
    "email",
    [
        pytest.param("", id="missing"),
        pytest.param("alice", id="no at sign"),
        pytest.param("@example.org", id="no local part"),
        pytest.param("alice@", id="no domain"),
        pytest.param("alice@org", id="a domain of one label"),
        pytest.param(f"{'a' * 65}@example.org", id="local part of 65 octets"),
        pytest.param("a@b@example.org", id="two at signs"),
        pytest.param("a@example.org,b@example.org", id="two addresses"),
        pytest.param('"alice smith"@example.org', id="quoted local part"),
        pytest.param('"alice"@example.org', id="needlessly quoted local part"),
        pytest.param("alice@[192.0.2.1]", id="IPv4 literal"),
        pytest.param("alice@[IPv6:2001:db8::1]", id="IPv6 literal"),
        pytest.param("=?utf-8?q?=61?=@x.org", id="encoded word"),
        pytest.param("alice@example.org\r\nBcc: b@example.org", id="header injection"),
        pytest.param("alice@example.org\r\n", id="trailing CR LF"),
        pytest.param("alice@example.org\n", id="trailing newline"),
        pytest.param("ali\rce@example.org", id="CR"),
        pytest.param("ali\0ce@example.org", id="NUL in the local part"),
        pytest.param("alice@exam\0ple.org", id="NUL in the domain"),
        pytest.param("\u00e4lice@example.org", id="non-ASCII local part"),
        pytest.param("\uff41lice@example.org", id="full-width local part"),
        pytest.param("ali\u200bce@example.org", id="zero-width space"),
        pytest.param(".alice@example.org", id="leading dot"),
        pytest.param("ali..ce@example.org", id="two dots"),
        pytest.param("alice@example.org.", id="trailing dot"),
        pytest.param("alice@-example.org", id="label with a leading hyphen"),
        pytest.param("alice@ex_ample.org", id="underscore in the domain"),
        pytest.param("alice@example.test", id="special use: test"),
        pytest.param("alice@localhost", id="special use: localhost"),
        pytest.param("alice@mail.localhost", id="special use: below localhost"),
        pytest.param("alice@example.invalid", id="special use: invalid"),
        pytest.param("alice@printer.local", id="special use: local"),
        pytest.param("alice@hidden.onion", id="special use: onion"),
        pytest.param(" alice@example.org", id="leading space"),
        pytest.param("alice@example.org ", id="trailing space"),
        pytest.param("alice @example.org", id="space before the at sign"),
        pytest.param("alice@ example.org", id="space after the at sign"),
        pytest.param("Alice <alice@example.org>", id="display name"),
        pytest.param("<alice@example.org>", id="angle brackets"),
        pytest.param("alice@example.org (Alice)", id="comment"),
    ],
)
def test_anything_but_one_plain_address_is_malformed(email: str) -> None:
    assert reasons(email=email) == [("email", "MALFORMED")]


# Password


@pytest.mark.parametrize("special", '!@#$%^&*(),.?":{}|<>')
def test_each_special_character_is_enough(special: str) -> None:
    password = f"Passw0rd{special}"
    assert registration(password=password).password.get_secret_value() == password


@pytest.mark.parametrize("other", "-_=+[];'/\\`~ \u20ac\u00a7")
def test_no_other_character_counts_as_special(other: str) -> None:
    assert broken(password=f"Passw0rd{other}") == [NO_SPECIAL]


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("passw0rd!", NO_UPPERCASE),
        ("PASSW0RD!", NO_LOWERCASE),
        ("Password!", NO_DIGIT),
        ("Passw0rdd", NO_SPECIAL),
        ("Aa1!567", PASSWORD_TOO_SHORT),
        ("Aa1!" + "x" * 45, PASSWORD_TOO_LONG),
        # What NFKC makes of it counts: a ligature of three letters, a fraction of three characters.
        ("Aa1!" + "\ufb03" * 15, PASSWORD_TOO_LONG),
        ("Aa1!5" + "e\u0301" * 2, PASSWORD_TOO_SHORT),
    ],
)
def test_each_broken_rule_of_a_password_has_its_sentence(
    password: str, expected: tuple[str, str, str]
) -> None:
    assert broken(password=password) == [expected]


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("Aa1!5678", id="8 characters"),
        pytest.param("Aa1!" + "x" * 44, id="48 characters"),
        pytest.param("Aa1!" + "\ufb03" * 2, id="6 characters that NFKC makes 10"),
        pytest.param("Aa1!" + "e\u0301" * 44, id="92 characters that NFKC makes 48"),
        # Deseret letters: upper and lower case, four bytes each.
        pytest.param("1!\U00010400\U00010428" + "\U0001f600" * 44, id="4 bytes a character"),
    ],
)
def test_a_password_between_8_and_48_characters_after_nfkc_is_accepted(password: str) -> None:
    kept = registration(password=password).password.get_secret_value()
    assert kept == unicodedata.normalize("NFKC", password)


@pytest.mark.parametrize(
    "control", ["\0", "\t", "\n", "\r", "\x1b", "\x7f", "\x80", "\x85", "\x9f"]
)
@pytest.mark.parametrize("password", ["{}Passw0rd!", "Pass{}w0rd!", "Passw0rd!{}"])
def test_a_control_character_anywhere_in_a_password_is_refused(password: str, control: str) -> None:
    assert reasons(password=password.format(control)) == [("password", "CONTROL_CHARACTER")]


@pytest.mark.parametrize("joiner", ["\u200d", "\u200b", "\u00ad"])
def test_invisible_characters_that_are_no_controls_are_allowed_in_a_password(joiner: str) -> None:
    password = f"Passw0rd!{joiner}"
    assert registration(password=password).password.get_secret_value() == password


def test_composed_and_decomposed_spellings_are_one_password() -> None:
    composed = registration(password="P\u00e9nsw0rd!").password
    decomposed = registration(password="Pe\u0301nsw0rd!").password
    assert composed == decomposed


# Request id


def test_no_request_id_is_none() -> None:
    assert registration(request_id="").request_id is None


@pytest.mark.parametrize("typed", [REQUEST_ID, REQUEST_ID.upper()])
def test_a_uuid_in_either_case_is_the_same_request_id(typed: str) -> None:
    assert registration(request_id=typed).request_id == UUID(REQUEST_ID)


@pytest.mark.parametrize(
    "typed",
    [
        "rubbish",
        " ",
        f"{{{REQUEST_ID}}}",
        f"urn:uuid:{REQUEST_ID}",
        REQUEST_ID.replace("-", ""),
        REQUEST_ID[:-1],
        f"{REQUEST_ID}0",
        f"{REQUEST_ID}\n",
        f" {REQUEST_ID}",
        REQUEST_ID.replace("0", "g"),
        REQUEST_ID.replace("0", "\uff10"),
    ],
)
def test_any_other_request_id_is_malformed(typed: str) -> None:
    assert reasons(request_id=typed) == [("request_id", "MALFORMED")]


# All together


def test_missing_fields_break_the_shortest_rule_of_each() -> None:
    found = broken(username="", email="", password="")
    assert found[0] == USERNAME_TOO_SHORT
    assert found[1][:2] == ("email", "MALFORMED")
    assert found[2:] == [PASSWORD_TOO_SHORT, NO_UPPERCASE, NO_LOWERCASE, NO_DIGIT, NO_SPECIAL]


def test_all_broken_rules_of_all_fields_are_told_at_once() -> None:
    found = reasons(
        username="\u0430" * 21, email="alice@localhost", password="\n", request_id="rubbish"
    )
    assert found == [
        ("username", "TOO_LONG"),
        ("username", "BAD_CHARACTER"),
        ("email", "MALFORMED"),
        ("password", "TOO_SHORT"),
        ("password", "NO_UPPERCASE"),
        ("password", "NO_LOWERCASE"),
        ("password", "NO_DIGIT"),
        ("password", "NO_SPECIAL"),
        ("password", "CONTROL_CHARACTER"),
        ("request_id", "MALFORMED"),
    ]


def test_a_refusal_holds_none_of_the_values_sent() -> None:
    sent = ["us3r <name>", "addr3ss@localhost", "s3cret\n", "r3quest"]
    with pytest.raises(InvalidFields) as caught:
        registration(*sent)
    error = caught.value
    told = f"{error} {error!r} {error.args} {error.violations} " + "".join(
        traceback.format_exception_only(error)
    )
    assert error.__cause__ is None
    assert error.__context__ is None
    assert [value for value in sent if value in told] == []


def test_a_registration_shows_its_password_to_nobody() -> None:
    made = registration()
    assert PASSWORD not in f"{made} {made!r} {made.model_dump()} {made.model_dump_json()}"


def test_a_password_as_long_as_a_message_may_be_is_too_long_whatever_it_holds() -> None:
    """A run of combining marks is normalised in the square of its length: it is cut first."""
    marks = "\u0301" * 16_000 + "\u0327" * 16_000
    assert ("password", "TOO_LONG") in reasons(password=f"Aa1!{marks}")
