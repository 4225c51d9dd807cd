"""The direction of imports: the core knows no adapter, only the composition root knows all of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import audit

ROOT = Path(audit.__file__).parent
ADAPTERS = {
    "audit.compose", "audit.cli", "audit.settings", "audit.exchange", "audit.webhook", "audit.deadline", "audit.route",
    "audit.targets", "audit.options",
    "audit.huawei.apig", "audit.huawei.function", "audit.huawei.obs",
    "audit.huawei.clients", "audit.huawei.functions", "audit.huawei.iam", "audit.huawei.trial",
    "audit.huawei.obs_client", "audit.huawei.pace", "audit.huawei.permissions", "audit.huawei.signing",
    "audit.huawei.transport",
}  # fmt: skip
MODULES = {
    ".".join(("audit", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in ROOT.rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py"}
}
CORE = sorted(MODULES.keys() - ADAPTERS)


def imports_of(path: Path) -> set[str]:
    """What a module imports when it runs; imports for type checkers only are no dependency."""

    class Visitor(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: set[str] = set()

        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            self.found |= {alias.name for alias in node.names}

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            self.found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}

    visitor = Visitor()
    visitor.visit(ast.parse(path.read_text()))
    return visitor.found


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_no_adapter(module):
    """Nor the network, the environment or a clock."""
    found = imports_of(MODULES[module])
    assert not found & ADAPTERS
    outside = {"requests", "socket", "os", "time", "huaweicloudsdkcore"} - (
        {"os"} if module == "audit.store" else set()
    )
    assert not {name.split(".")[0] for name in found} & outside


def test_every_adapter_named_here_exists():
    """A renamed module must not slip out of this test."""
    assert set(MODULES) >= ADAPTERS


def test_only_the_front_doors_import_the_composition_root():
    """Everything else is handed what it needs."""
    users = {module for module, path in MODULES.items() if "audit.compose" in imports_of(path)}
    assert users == {"audit.cli"}
    assert "audit.compose" in imports_of(ROOT.parent / "handler.py")


def test_the_emulator_imports_nothing_of_the_product():
    """It is an independent reading of the vendor's document."""
    for path in (ROOT.parent / "tests" / "emulator").glob("*.py"):
        assert not {name for name in imports_of(path) if name.split(".")[0] in {"audit", "handler"}}, path


def test_the_clock_is_read_in_adapters_only():
    """`now` is an argument everywhere else."""
    for module in CORE:
        assert not re.search(r"\b(datetime\.now|utcnow|time\.time|monotonic)\(", MODULES[module].read_text()), module


@pytest.mark.parametrize(
    "heavy", ["rich", "jinja2", "jsonschema", "huaweicloudsdkapig", "hypothesis", "obs", "audit.render.chat"]
)
def test_a_start_does_not_load_what_only_a_terminal_or_some_runs_need(heavy):
    """Cold start pays for nothing that is not used."""
    code = f"import sys, handler; sys.exit(any((name + '.').startswith('{heavy}.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, check=False).returncode == 0
