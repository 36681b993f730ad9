"""The room of the HTTP face: a Quart application served by Hypercorn. Nothing of it is built yet.

Imports point one way: `runtime_http` imports `runtime`, and of the whole project only
`runtime.cli` imports `runtime_http`.
"""
