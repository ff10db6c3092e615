"""How the engine's WebAssembly module is made: C sources, our shim and prelude, compiled, initialised and baked.

Runs when the package is built (hatch_build.py) or by hand (`python -m enclave_broker.core.build`), never in a broker or
worker. It imports nothing of the package but this folder, so that it runs before the package is installed.
"""
