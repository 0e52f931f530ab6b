import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MailState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MAIL_STATE_UNSPECIFIED: _ClassVar[MailState]
    MAIL_STATE_QUEUED: _ClassVar[MailState]
    MAIL_STATE_SENT: _ClassVar[MailState]
    MAIL_STATE_DEAD: _ClassVar[MailState]
    MAIL_STATE_PAUSED: _ClassVar[MailState]
MAIL_STATE_UNSPECIFIED: MailState
MAIL_STATE_QUEUED: MailState
MAIL_STATE_SENT: MailState
MAIL_STATE_DEAD: MailState
MAIL_STATE_PAUSED: MailState

class GetDeliveryStatusRequest(_message.Message):
    __slots__ = ("user_id", "email")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    email: str
    def __init__(self, user_id: _Optional[str] = ..., email: _Optional[str] = ...) -> None: ...

class GetDeliveryStatusResponse(_message.Message):
    __slots__ = ("user_id", "email_verified", "mails")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    MAILS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    email_verified: bool
    mails: _containers.RepeatedCompositeFieldContainer[MailStatus]
    def __init__(self, user_id: _Optional[str] = ..., email_verified: bool = ..., mails: _Optional[_Iterable[_Union[MailStatus, _Mapping]]] = ...) -> None: ...

class MailStatus(_message.Message):
    __slots__ = ("id", "state", "attempts", "created_at", "sent_at", "dead_at", "next_try_at", "last_error", "pause_reason", "link_expires_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    DEAD_AT_FIELD_NUMBER: _ClassVar[int]
    NEXT_TRY_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    PAUSE_REASON_FIELD_NUMBER: _ClassVar[int]
    LINK_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: MailState
    attempts: int
    created_at: _timestamp_pb2.Timestamp
    sent_at: _timestamp_pb2.Timestamp
    dead_at: _timestamp_pb2.Timestamp
    next_try_at: _timestamp_pb2.Timestamp
    last_error: str
    pause_reason: str
    link_expires_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[MailState, str]] = ..., attempts: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sent_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dead_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_try_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_error: _Optional[str] = ..., pause_reason: _Optional[str] = ..., link_expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
