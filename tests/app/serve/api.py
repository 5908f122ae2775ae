"""What the tests of the API share: photographs to send, and its description to compare with."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")

from semvlp.app.serve.server import PAGE

EVIL = "<script>alert(1)</script>"
OPENAPI = json.loads((PAGE / "openapi.json").read_text())


def photo(path: Path, name: str = "a.png") -> tuple[str, tuple[str, bytes]]:
    return "photo", (name, path.read_bytes())


def fits(value: Any, schema: dict[str, Any]) -> None:
    """Check a value against the part of JSON schema that our description is written in."""
    if "$ref" in schema:
        return fits(value, OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(isinstance(value, kinds[name]) for name in named), (value, schema)
    assert schema.get("minimum", value) <= value if "minimum" in schema else True
    assert value <= schema["maximum"] if "maximum" in schema else True
    assert value in schema.get("enum", [value])
    if isinstance(value, dict):
        assert set(value) == set(schema["required"]) == set(schema["properties"])
        for name, member in value.items():
            fits(member, schema["properties"][name])
    for member in value if isinstance(value, list) else ():
        fits(member, schema["items"])


def described(path: str, method: str) -> dict[str, Any]:
    answer = OPENAPI["paths"][path][method]["responses"]["200"]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema
