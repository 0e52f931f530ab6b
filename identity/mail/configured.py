"""The sender that the settings ask for. Each is imported when it is chosen: boto3 takes 0.3 s."""

import ssl
import sys

import structlog

from identity.config import ConfigurationError, Settings
from identity.mail.sender import Sender

_log = structlog.get_logger()


def configured_sender(settings: Settings) -> Sender:
    """Opens no connection yet. Raises ConfigurationError."""
    if settings.email_sender == "smtp":
        return _smtp_sender(settings)
    if settings.email_sender == "ses":
        return _ses_sender(settings)
    from identity.mail.console import ConsoleSender  # noqa: PLC0415

    if not settings.is_embedded:
        _log.warning("mail_goes_to_the_console", hint="set IDENTITY_EMAIL_SENDER")
    return ConsoleSender(sys.stdout)


def _smtp_sender(settings: Settings) -> Sender:
    from identity.mail.smtp import SmtpSender, SmtpServer, SmtpTls  # noqa: PLC0415

    password = settings.smtp_password
    return SmtpSender(
        SmtpServer(
            settings.smtp_host,
            settings.smtp_port,
            SmtpTls(settings.smtp_tls),
            settings.smtp_username,
            password.get_secret_value() if password else None,
        ),
        settings.email_from.addr_spec,
        ssl.create_default_context(),
    )


def _ses_sender(settings: Settings) -> Sender:
    from botocore.exceptions import BotoCoreError, NoRegionError  # noqa: PLC0415

    from identity.mail.ses import SesSender, ses_client  # noqa: PLC0415

    try:
        return SesSender(ses_client(settings.ses_region), settings.ses_configuration_set)
    except NoRegionError:
        raise ConfigurationError("IDENTITY_SES_REGION: required with the sender ses") from None
    except (BotoCoreError, ValueError) as error:  # a profile that is not there, a bad endpoint
        why = f"boto3's settings are unusable: {type(error).__name__}"
        raise ConfigurationError(f"IDENTITY_EMAIL_SENDER: {why}") from None
