"""The build hook: makes core/quickjs.wasm for wheels and editable installs (core/build/ says how)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent / "src"))

from enclave_broker.core.build.build import build, is_cached
from enclave_broker.core.build.recipe import REQUIREMENTS


class EngineBuildHook(BuildHookInterface[Any]):
    """Makes the engine's module; a source distribution goes without."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """The compiler and its companions, 0.4 GB: only where the engine hasn't been built before."""
        return [] if self.target_name == "sdist" or is_cached() else list(REQUIREMENTS)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "sdist":
            build()
