"""The API as an OpenAPI 3.1 document. A test holds its paths and methods to the routes."""

from __future__ import annotations

from typing import Any

__all__ = ["openapi_document"]

_VERSION = "2"
"""The protocol's, which is what the API follows."""

_INT = {"type": "integer"}
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_OBJECT = {"type": "object"}
_MILLISECONDS = {"type": "number", "description": "milliseconds"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str, /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_STAGE = {"enum": ["requested", "placed", "asked", "decided", "started", "settled"]}
_WHO = _object("subject", subject=_TEXT, tenant=_TEXT)
_SCHEMAS: dict[str, Any] = {
    "Error": _object("code message", code=_TEXT, message=_TEXT, details=_array(_OBJECT)),
    "Event": _object(
        "protocolVersion sessionId seq type payload",
        protocolVersion={"const": 2},
        sessionId=_TEXT,
        seq={**_INT, "minimum": 1},
        type=_TEXT,
        payload=_OBJECT,
    ),
    "SessionRequest": _object(
        "code",
        code={**_TEXT, "description": "the script"},
        language=_TEXT,
        sessionId={**_TEXT, "description": "an id of the client's own: s_ and 1 to 126 of A-Z a-z 0-9 _ . : @ -"},
        config=_object("", maxExecutionMs=_MILLISECONDS, maxToolCalls=_INT, heartbeatIntervalMs=_MILLISECONDS),
        limits={**_OBJECT, "description": "limits by their wire names; what exceeds the server's is lowered to it"},
        allowedTools={**_array(_TEXT), "description": "names and globs; without it every tool"},
        filter={**_OBJECT, "description": "which events are sent"},
        metadata={**_OBJECT, "description": "labels"},
        detach={**_FLAG, "description": "the run goes on for as long as it may, also when nobody watches it"},
        stream={**_FLAG, "description": "false: one object after the end"},
        protocolVersion={"enum": [1, 2]},
        encryption={**_OBJECT, "description": "there is none yet: a mode of required is refused"},
    ),
    "Result": _object(
        "sessionId ok",
        sessionId=_TEXT,
        ok=_FLAG,
        result={"description": "the script's value; absent for undefined"},
        error=_object("message", message=_TEXT, code=_TEXT, stack=_TEXT),
        stats=_object("", durationMs={"type": "number"}, toolCallCount=_INT, stdoutBytes=_INT),
    ),
    "Session": _object(
        "sessionId state createdAt expiresAt stats",
        sessionId=_TEXT,
        state={"enum": ["starting", "running", "waiting_for_tool", "completed", "cancelled", "failed"]},
        createdAt={**_INT, "description": "milliseconds since the epoch"},
        expiresAt={**_INT, "description": "milliseconds since the epoch"},
        stats=_object("duration toolCallCount", duration=_INT, toolCallCount=_INT),
    ),
    "Call": _object(
        "callId toolName args outcome",
        callId=_TEXT,
        toolName=_TEXT,
        args=_OBJECT,
        outcome={"enum": ["done", "failed", "denied", "waiting", "unknown", "not_run"]},
        error=_object("code message", code=_TEXT, message=_TEXT),
        rule=_TEXT,
        startedAt={**_INT, "description": "milliseconds since the epoch"},
        durationMs={"type": "number"},
        argsBytes=_INT,
        resultBytes=_INT,
        byHost=_FLAG,
        principal=_TEXT,
        decidedBy=_TEXT,
        route=_TEXT,
        stages=_array(
            _object(
                "stage at",
                stage=_STAGE,
                at={"type": "number"},
            )
        ),
    ),
    "Approval": _object(
        "approvalId sessionId callId toolName args requestedBy rule createdAt expiresAt state",
        approvalId=_TEXT,
        sessionId=_TEXT,
        callId=_TEXT,
        toolName=_TEXT,
        args={**_OBJECT, "description": "the call's arguments, defaults filled in, nothing hidden"},
        requestedBy=_WHO,
        rule=_TEXT,
        createdAt={**_INT, "description": "milliseconds since the epoch"},
        expiresAt={**_INT, "description": "milliseconds since the epoch"},
        state={"enum": ["pending", "approved", "denied", "expired"]},
        reason=_TEXT,
        decidedBy=_WHO,
    ),
    "Decision": _object("decision", decision={"enum": ["approve", "deny"]}, reason=_TEXT),
    "ToolResult": _object(
        "callId ok",
        callId=_TEXT,
        ok=_FLAG,
        result={},
        error=_object("message", message=_TEXT, code=_TEXT, details={}),
    ),
    "Action": _object(
        "name service",
        name=_TEXT,
        description=_TEXT,
        inputSchema=_OBJECT,
        service=_TEXT,
        tags=_array(_TEXT),
        deprecated=_FLAG,
    ),
}
_ERROR = {"description": "{code, message, details?}", "content": _json(_ref("Error"))}
_STREAM = {
    "application/x-ndjson": {"schema": _ref("Event")},
    "text/event-stream": {"schema": {**_TEXT, "description": "`id: seq` and `data:` with the event"}},
}
_ID = {"name": "id", "in": "path", "required": True, "schema": _TEXT}


def _query(name: str, schema: Any, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _operation(summary: str, content: Any, body: Any = None, parameters: Any = ()) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": content}, "default": _ERROR},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    if parameters:
        operation["parameters"] = list(parameters)
    return operation


def _kinds(*types: str) -> dict[str, Any]:
    return {kind: {"schema": _TEXT} for kind in types}


def _success(**more: Any) -> dict[str, Any]:
    return _json(_object("success", success=_FLAG, **more))


_FROM_SEQ = _query("fromSeq", _INT, "the first event that is wanted; `from` means the same")
_FILTER = _query("filter", _TEXT, "which events are sent, as JSON")
_PAGE = (
    _query("state", _TEXT, "only those in this state"),
    _query("after", _TEXT, "the last session of the page before"),
    _query("limit", {**_INT, "minimum": 1, "maximum": 1000}, "sessions a page"),
)
_CANCEL = {"content": {kind: {"schema": _object("", reason=_TEXT)} for kind in ("application/json", "text/plain")}}
_PATHS: dict[str, Any] = {
    "/sessions": {
        "post": _operation(
            "Run code: its events as they happen, or one object after the end",
            _STREAM | _json(_ref("Result")),
            _ref("SessionRequest"),
        ),
        "get": _operation(
            "The caller's sessions, oldest first",
            _json(_object("sessions total", sessions=_array(_ref("Session")), total=_INT)),
            parameters=_PAGE,
        ),
    },
    "/sessions/{id}": {
        "get": _operation("One session", _json(_ref("Session")), parameters=[_ID]),
        "delete": _operation("Cancel it if it runs, and forget it", _success(sessionId=_TEXT), parameters=[_ID]),
    },
    "/sessions/{id}/stream": {
        "get": _operation(
            "Its events from `fromSeq`, then live to the final", _STREAM, parameters=[_ID, _FROM_SEQ, _FILTER]
        ),
    },
    "/sessions/{id}/cancel": {
        "post": _operation("End what runs in it", _success(), parameters=[_ID]) | {"requestBody": _CANCEL},
    },
    "/sessions/{id}/tool-result": {
        "post": _operation(
            "The result of a tool that the client executes", _success(callId=_TEXT), _ref("ToolResult"), [_ID]
        ),
    },
    "/sessions/{id}/calls": {
        "get": _operation(
            "Its tool calls",
            _json(_object("calls total", calls=_array(_ref("Call")), total=_INT)),
            parameters=[_ID],
        ),
    },
    "/approvals": {
        "get": _operation(
            "The calls that wait for a person and that the caller may decide, oldest first",
            _json(_object("approvals total", approvals=_array(_ref("Approval")), total=_INT)),
            parameters=[_query("session", _TEXT, "only those of this session")],
        ),
    },
    "/approvals/{id}": {
        "get": _operation("One of them, decided or not", _json(_ref("Approval")), parameters=[_ID]),
        "post": _operation("Approve or deny it", _success(approvalId=_TEXT), _ref("Decision"), [_ID]),
    },
    "/code/actions": {
        "get": _operation(
            "The tools that scripts can call",
            _json(
                _object(
                    "actions services version", actions=_array(_ref("Action")), services=_array(_OBJECT), version=_TEXT
                )
            ),
        ),
    },
    "/healthz": {"get": _operation("The process answers", _json(_object("status", status=_TEXT)))},
    "/readyz": {"get": _operation("Sessions can be begun", _json(_object("status", status=_TEXT)))},
    "/metrics": {"get": _operation("Numbers of the whole broker, for Prometheus", {"text/plain": {"schema": _TEXT}})},
    "/openapi.json": {"get": _operation("This document", _json(_OBJECT))},
    "/docs": {"get": _operation("This document, to read", {"text/html": {"schema": _TEXT}})},
    "/console": {
        "get": _operation("A page that shows sessions, calls and approvals, unless it is left out", _kinds("text/html"))
    },
    "/console/{file}": {
        "get": _operation(
            "What that page is made of",
            _kinds("text/javascript", "text/css", "image/svg+xml"),
            parameters=[{**_ID, "name": "file"}],
        )
    },
}


def openapi_document(base: str) -> dict[str, Any]:
    """`base` is where the application is mounted."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "enclave-broker", "version": _VERSION},
        "servers": [{"url": base}],
        "paths": _PATHS,
        "components": {"schemas": _SCHEMAS},
    }
