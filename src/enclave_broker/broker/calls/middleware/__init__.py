"""What stands around a handler: `async def mw(call, call_next)`, broker-wide and per route. One file each.

compose.py makes one function of them. A middleware keeps its state in its own object, which serves one event loop at a
time: put one object in two places only if its places, circuits or results shall be shared.
"""
