"""Sends mails by Amazon SES, API version 2. Imported only where SES is chosen: boto3 is slow."""

from typing import Any, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from identity.mail.sender import (
    AccountFailure,
    DeliveryError,
    Mail,
    PermanentFailure,
    TemporaryFailure,
)

CONNECT_TIMEOUT: Final = 3.0  # seconds
READ_TIMEOUT: Final = 10.0  # seconds

# https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html#API_SendEmail_Errors
_THIS_MAIL: Final = frozenset({"MessageRejected", "BadRequestException"})
_ANY_MAIL: Final = frozenset(
    {
        "AccountSuspendedException",
        "SendingPausedException",
        "MailFromDomainNotVerifiedException",
        "LimitExceededException",  # the quota of a day
        "NotFoundException",  # the configuration set
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# Two conditions that SES tells from their neighbours by the text alone. It is only looked into,
# never kept: it names addresses.
_NOT_VERIFIED: Final = "not verified"
_DAILY_QUOTA: Final = "daily message quota"


class SesClient(Protocol):
    """The part of boto3's `sesv2` client that is used."""

    def send_email(self, **request: Any) -> Any: ...  # noqa: ANN401 - boto3's shapes are dicts


class SesAccount(Protocol):
    """The part of it that tells how the account stands. Changes nothing."""

    meta: Any  # where it sends its requests

    def get_account(self) -> Any: ...  # noqa: ANN401

    def get_email_identity(self, **request: Any) -> Any: ...  # noqa: ANN401

    def get_configuration_set(self, **request: Any) -> Any: ...  # noqa: ANN401


class SesConnection(SesClient, SesAccount, Protocol):
    """Both."""


def ses_client(region: str | None, read_timeout: float = READ_TIMEOUT) -> SesConnection:
    """boto3's client. Credentials and endpoint, and the region if None, are boto3's own settings.

    One attempt a call: retries are the outbox's, and two layers of them multiply. Raises
    botocore's NoRegionError.
    """
    # A session of its own: boto3's default one keeps the credentials that it saw first.
    client: SesConnection = boto3.Session().client(
        "sesv2",
        region_name=region,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read_timeout,
            retries={"total_max_attempts": 1},
        ),
    )
    return client


class SesSender:
    """Hands each mail over whole, tagged with its outbox id."""

    def __init__(self, client: SesClient, configuration_set: str | None = None) -> None:
        self._client = client
        self._options = {"ConfigurationSetName": configuration_set} if configuration_set else {}

    def send(self, mail: Mail) -> None:
        try:
            self._client.send_email(
                Destination={"ToAddresses": [mail.to]},
                Content={"Raw": {"Data": mail.message.as_bytes()}},
                # SES has no idempotency key; by the tag an operator finds a duplicate's origin.
                EmailTags=[{"Name": "outbox_id", "Value": mail.outbox_id}],
                **self._options,
            )
        except ClientError as error:
            raise _classified(error) from None
        except NoCredentialsError:
            raise AccountFailure("ses NoCredentialsError") from None
        except BotoCoreError as error:  # no answer: a time-out, a lost connection
            raise TemporaryFailure(f"ses {type(error).__name__}") from None

    def close(self) -> None:
        """boto3 keeps its connections by itself."""


def _classified(error: ClientError) -> DeliveryError:
    code, text = error_code(error), str(error.response.get("Error", {}).get("Message", "")).lower()
    reason = f"ses {code}"
    if code in _ANY_MAIL or _DAILY_QUOTA in text:
        return AccountFailure(reason)
    if code in _THIS_MAIL:
        # In the sandbox, or from an address that is not ours, every mail is refused so.
        return AccountFailure(reason) if _NOT_VERIFIED in text else PermanentFailure(reason)
    return TemporaryFailure(reason)  # throttling, 5xx, and whatever SES adds


def error_code(error: ClientError) -> str:
    """AWS's own name of the error; its text names addresses."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))[:80]
