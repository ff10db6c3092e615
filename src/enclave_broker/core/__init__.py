"""The secure execution environment: QuickJS-NG in WebAssembly. Only a worker process uses it."""
