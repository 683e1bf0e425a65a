"""LLVM: llvmlite's binding, and IR text made into an optimised module. The only file that knows
llvmlite's name.

In: the text of a module and LLVM's description of a machine. Out: modules. Called by cpu/jit.py and
gpu/ptx.py, which know their machines. Importing this file imports nothing heavy: llvmlite is loaded
by the first call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...errors import NativeUnavailable


@cache
def binding() -> Any:
    """llvmlite's binding, ready for every machine that it can generate code for."""
    try:
        import llvmlite.binding as llvm
    except (ImportError, OSError) as error:
        raise NativeUnavailable(
            f"compiling to native code needs llvmlite (pip install llvmlite): {error}"
        ) from error
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # NewGVN replaces an operation on phis of a loop by a phi of operations, and then takes a value
    # of this round for that of the last one: the first of the largest in a row was a wrong one
    # (tests/cpu/test_miscompiled.py).
    llvm.set_option("tinygrad_tx", "-enable-phi-of-ops=false")
    return llvm


def version() -> str:
    """Of LLVM and llvmlite, as a part of cache keys."""
    return f"{'.'.join(map(str, binding().llvm_version_info))}-{_package_version()}"


def _package_version() -> str:
    import llvmlite

    return str(llvmlite.__version__)


def parse(text: str, machine: Any) -> Any:
    """The module of a text, verified. RuntimeError where it is no valid IR."""
    module = binding().parse_assembly(text)
    module.data_layout = str(machine.target_data)
    module.verify()
    return module


def optimise(module: Any, machine: Any) -> None:
    """The passes that our code needs: it is vectorised and unrolled by hand, and says itself what
    is worth inlining. What is left to do takes LLVM's own pipelines five times as long, to the same
    speed of the code."""
    llvm = binding()
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_ipsccp_pass()  # fits internal functions to the constants that they are called with
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    passes.add_simplify_cfg_pass()
    passes.add_dead_code_elimination_pass()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    passes.run(module, llvm.create_pass_builder(machine, options))
