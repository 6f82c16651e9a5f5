"""Parses a low-code manifest and has Airbyte's CDK check it; run by the CDK's own interpreter.

`python manifest_check.py MANIFEST RESULT` writes `{"manifest": ...}` or `{"error": sentence}` as
JSON. It imports nothing of the project, which is not installed in that environment.
"""

import json
import sys


def main() -> None:
    """Check the manifest file `argv[1]`, and write the result to the file `argv[2]`."""
    with open(sys.argv[2], "w", encoding="utf-8") as result:
        json.dump(checked(sys.argv[1]), result)


def checked(path: str) -> "dict[str, object]":
    """Return the manifest, or a sentence about what is wrong with it."""
    import yaml  # noqa: PLC0415 - of the CDK's environment

    try:
        with open(path, encoding="utf-8") as file:
            manifest = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {"error": f"it is not readable as YAML: {' '.join(str(error).split())}"}
    if not isinstance(manifest, dict) or manifest.get("type") != "DeclarativeSource":
        return {"error": "its root must be an object with `type: DeclarativeSource`"}
    refusal = refused(manifest)
    if refusal is not None:
        return {"error": refusal}
    return {"manifest": json.loads(json.dumps(manifest, default=str))}


def refused(manifest: "dict[str, object]") -> "str | None":
    """Return why the CDK refuses the manifest, or None."""
    from airbyte_cdk.sources.declarative import (  # noqa: PLC0415
        concurrent_declarative_source as cdk,
    )

    try:
        cdk.ConcurrentDeclarativeSource(source_config=manifest, custom_components_trusted=False)
    except Exception as error:  # noqa: BLE001 - any error means an invalid manifest
        cause = error.__cause__ or error
        where = getattr(cause, "json_path", "")
        message = getattr(cause, "message", None) or str(cause)
        return f"{where}: {message}"[:500].lstrip(": ")
    return None


if __name__ == "__main__":
    main()
