"""What comes in, checked: the rules for a registration live here.

Every broken rule of every field is collected before anything is refused. A field's validator
therefore raises one `BrokenRules` with all that is wrong with the field, and pydantic gathers
those of all fields.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Self
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationError

from identity.errors import InvalidFields, Violation
from identity.security.passwords import normalize

USERNAME_MINIMUM = 3
USERNAME_MAXIMUM = 20
PASSWORD_MINIMUM = 8
PASSWORD_MAXIMUM = 48
# Code points before NFKC. It composes at most a letter and three marks into one.
PASSWORD_MAXIMUM_TYPED = 4 * PASSWORD_MAXIMUM
PASSWORD_SPECIALS = frozenset('!@#$%^&*(),.?":{}|<>')
EMAIL_MAXIMUM = 254  # octets; RFC 5321, 4.5.3.1.3 less the angle brackets

# Names that people take for the operator, and addresses that RFC 2142 reserves.
RESERVED_USERNAMES = frozenset(
    "admin administrator root system support help security abuse postmaster webmaster hostmaster "
    "noreply no-reply identity null undefined".split()
)

_USERNAME = re.compile(r"[A-Za-z0-9._-]*", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


class BrokenRules(ValueError):
    """All that is wrong with one field: pairs of a reason and a description."""

    def __init__(self, rules: Sequence[tuple[str, str]]) -> None:
        super().__init__("broken rules")
        self.rules = tuple(rules)


def _too_short(minimum: int) -> tuple[str, str]:
    return "TOO_SHORT", f"string should have at least {minimum} characters"


def _too_long(maximum: int) -> tuple[str, str]:
    return "TOO_LONG", f"string should have at most {maximum} characters"


def _username(value: str) -> str:
    broken = []
    if len(value) < USERNAME_MINIMUM:
        broken.append(_too_short(USERNAME_MINIMUM))
    if len(value) > USERNAME_MAXIMUM:
        broken.append(_too_long(USERNAME_MAXIMUM))
    if not _USERNAME.fullmatch(value):
        broken.append(
            ("BAD_CHARACTER", "username may contain only letters, digits and . _ - (ASCII)")
        )
    if value.lower() in RESERVED_USERNAMES:
        broken.append(("RESERVED", "username is reserved"))
    if broken:
        raise BrokenRules(broken)
    return value


def _email(value: str) -> str:
    # The length first: what follows takes time in proportion to it.
    if len(value.encode()) > EMAIL_MAXIMUM:
        raise BrokenRules([_too_long(EMAIL_MAXIMUM)])
    malformed = BrokenRules([("MALFORMED", "email must be one valid address")])
    # A local part in the form of an encoded word (RFC 2047) would be shown as other than it is.
    if value.startswith("=?"):
        raise malformed
    try:
        address = validate_email(
            value, check_deliverability=False, allow_smtputf8=False, strict=True
        ).ascii_email
    except EmailNotValidError:
        raise malformed from None
    if address is None:  # not with an ASCII local part; the type says that it can be
        raise malformed
    return address.lower()


def _password(value: SecretStr) -> SecretStr:
    raw = value.get_secret_value()
    # NFKC takes time in the square of a run of combining marks: 64 KiB of them would hold the
    # interpreter for two seconds. What is cut off is too long whatever it holds.
    password = normalize(raw[:PASSWORD_MAXIMUM_TYPED])
    broken = []
    if len(password) < PASSWORD_MINIMUM:
        broken.append(_too_short(PASSWORD_MINIMUM))
    if len(password) > PASSWORD_MAXIMUM or len(raw) > PASSWORD_MAXIMUM_TYPED:
        broken.append(_too_long(PASSWORD_MAXIMUM))
    if not any(c.isupper() for c in password):
        broken.append(("NO_UPPERCASE", "password must contain at least one uppercase letter"))
    if not any(c.islower() for c in password):
        broken.append(("NO_LOWERCASE", "password must contain at least one lowercase letter"))
    if not any(c.isdecimal() for c in password):
        broken.append(("NO_DIGIT", "password must contain at least one number"))
    if not PASSWORD_SPECIALS.intersection(password):
        broken.append(("NO_SPECIAL", "password must contain at least one special character"))
    if any(unicodedata.category(c) == "Cc" for c in password):
        broken.append(("CONTROL_CHARACTER", "password must not contain control characters"))
    if broken:
        raise BrokenRules(broken)
    return SecretStr(password)


def _uuid(value: str, field: str) -> UUID:
    if not _UUID.fullmatch(value):
        raise BrokenRules([("MALFORMED", f"{field} must be a UUID of 36 characters")])
    return UUID(value)


def _request_id(value: str) -> UUID | None:
    return _uuid(value, "request_id") if value else None


def _user_id(value: str) -> str:
    return str(_uuid(value, "user_id"))


class _Incoming(BaseModel):
    """Base of what comes in. The fields' values stay out of every error."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @classmethod
    def checked(cls, **fields: Any) -> Self:  # noqa: ANN401 - the fields' own types check it
        """Builds the model. Raises InvalidFields with every broken rule of every field."""
        try:
            return cls(**fields)
        except ValidationError as error:
            violations = [
                Violation(str(field["loc"][0]), reason, description)
                for field in error.errors(include_url=False, include_input=False)
                for reason, description in field["ctx"]["error"].rules
            ]
        raise InvalidFields(violations)


class Resend(_Incoming):
    """A request for another mail. email: lower case, ASCII."""

    email: Annotated[str, AfterValidator(_email)]


class UserReference(_Incoming):
    """Names one user, by one of the two; the other is None.

    user_id: a UUID in lower case. email: lower case, ASCII.
    """

    user_id: Annotated[str, AfterValidator(_user_id)] | None = None
    email: Annotated[str, AfterValidator(_email)] | None = None


class Registration(_Incoming):
    """A registration that keeps every rule.

    username: as typed. email: lower case, ASCII. password: NFKC. request_id: a UUID or None.
    """

    username: Annotated[str, AfterValidator(_username)]
    email: Annotated[str, AfterValidator(_email)]
    password: Annotated[SecretStr, AfterValidator(_password)]
    request_id: Annotated[Any, AfterValidator(_request_id)] = None

    @property
    def username_key(self) -> str:
        """The username folded for comparison. It is ASCII, so that lower case is all it takes."""
        return self.username.lower()
