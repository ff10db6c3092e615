"""What a client of the protocol takes: one strict model for each event's payload, for errors, infos and actions.

A field without a default has to be there. One with `optional()` may be absent, but is never null: clients drop a line
with a null. Unknown fields are refused, so that a misspelt one is found. Names are the wire's in snake case. Whole
streams are `streams.py`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

SessionId = Annotated[str, Field(pattern=r"^s_.+$")]
CallId = Annotated[str, Field(pattern=rf"^c_{UUID4}$")]
"""Calls' ids are always the server's own."""
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Elapsed = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def optional() -> Any:
    """The default of a field that may be absent."""
    return Field(default=None)


class Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel)


# -- errors ----------------------------------------------------------------------------------------------------------


class RetryInfo(Model):
    type: Literal["retry_info"]
    retry_delay_ms: Count


class UpstreamInfo(Model):
    type: Literal["upstream_info"]
    status_code: int
    url: str


class ValidationInfo(Model):
    type: Literal["validation_info"]
    field: str
    reason: Text


class QuotaInfo(Model):
    type: Literal["quota_info"]
    limit: Count
    used: Count


Detail = Annotated[RetryInfo | UpstreamInfo | ValidationInfo | QuotaInfo, Field(discriminator="type")]


class ErrorPayload(Model):
    code: Text
    message: Text
    path: list[str] = optional()
    details: list[Detail] = optional()


class Refusal(Model):
    """The body of an answer that is an error."""

    code: Annotated[str, Field(pattern=r"^[A-Z]+(_[A-Z]+)*$")]
    message: Text
    details: list[Detail] = optional()


# -- payloads --------------------------------------------------------------------------------------------------------


class Encryption(Model):
    enabled: bool
    key_id: str = optional()


class SessionInit(Model):
    cancel_url: Text
    expires_at: Time
    encryption: Encryption
    replay_url: Text = optional()


class Stdout(Model):
    chunk: Text


class Log(Model):
    level: Literal["debug", "info", "warn", "error"]
    message: str
    data: dict[str, JsonValue] = optional()


class ToolCall(Model):
    call_id: CallId
    tool_name: str
    args: dict[str, JsonValue]


class ToolProgress(Model):
    call_id: CallId
    phase: Literal["connecting", "sending", "receiving", "processing"]
    elapsed_ms: Elapsed
    bytes_received: Count = optional()
    total_bytes: Count = optional()


class ToolResultApplied(Model):
    call_id: CallId


class PartialResult(Model):
    path: list[str]
    data: JsonValue = optional()
    error: ErrorPayload = optional()
    has_next: bool


class Error(Model):
    message: Text
    code: Text = optional()
    recoverable: bool = optional()


class Heartbeat(Model):
    ts: Time


class DeadlineExceeded(Model):
    elapsed_ms: Elapsed
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CatalogChanged(Model):
    version: Text
    added_actions: list[str]
    removed_actions: list[str]


class FinalError(Model):
    message: str
    code: Text = optional()
    stack: str = optional()


class Stats(Model):
    duration_ms: Elapsed
    tool_call_count: Count
    stdout_bytes: Count


class Final(Model):
    ok: bool
    result: JsonValue = optional()
    error: FinalError = optional()
    errors: list[ErrorPayload] = optional()
    stats: Stats = optional()

    @model_validator(mode="after")
    def is_a_result_or_an_error(self) -> Final:
        given = self.model_fields_set
        if self.ok and "error" in given:
            raise ValueError("ok, and an error")
        if not self.ok and ("error" not in given or "result" in given):
            raise ValueError("not ok, and no error, or a result")
        return self


class OneObject(Final):
    """What answers a POST that wants one object: the final's payload, and whose it is."""

    session_id: SessionId


class Envelope(Model):
    kid: Text
    nonce_b64: Text
    ciphertext_b64: Text
    tag_b64: Text = optional()


# -- events ----------------------------------------------------------------------------------------------------------

PAYLOADS: dict[str, type[Model]] = {
    "session_init": SessionInit,
    "stdout": Stdout,
    "log": Log,
    "tool_call": ToolCall,
    "tool_progress": ToolProgress,
    "tool_result_applied": ToolResultApplied,
    "partial_result": PartialResult,
    "error": Error,
    "heartbeat": Heartbeat,
    "deadline_exceeded": DeadlineExceeded,
    "catalog_changed": CatalogChanged,
    "final": Final,
    "enc": Envelope,
}
MADE_LATER = {"partial_result", "error", "enc"}
"""Types that no request makes a server send today; that none comes unasked is checked in every stream."""


class Event(Model):
    protocol_version: Literal[2]
    session_id: SessionId
    seq: Annotated[int, Field(ge=1)]
    type: str
    payload: dict[str, JsonValue]

    @model_validator(mode="after")
    def is_of_a_known_type(self) -> Event:
        if self.type not in PAYLOADS:
            raise ValueError(f"clients don't know the type {self.type}")
        PAYLOADS[self.type].model_validate(self.payload)
        return self


# -- answers ---------------------------------------------------------------------------------------------------------


class InfoStats(Model):
    duration: Count
    tool_call_count: Count


class Info(Model):
    session_id: SessionId
    state: Literal["starting", "running", "waiting_for_tool", "completed", "cancelled", "failed"]
    created_at: Count
    expires_at: Count
    stats: InfoStats


class Sessions(Model):
    sessions: list[Info]
    total: Count


class Action(Model):
    name: Text
    description: str = optional()
    input_schema: dict[str, JsonValue] = optional()
    service: Text
    tags: list[str] = optional()
    deprecated: bool = optional()


class Actions(Model):
    actions: list[Action]
    services: list[JsonValue]
    version: Text


EVENT = TypeAdapter(Event)
