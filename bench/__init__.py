"""What the runtime costs, beside its peers and beside the limit, in one run on one machine.

- `tools/`: one small class for each program that is measured; a new peer is one more of them.
- `rows/`: one module for each group of rows, and what it does with a tool.
- `stage.py`: how a tool is started, looked at from outside, and cleared away.
- `children.py`: the tiny programs that the tools run, and how those report.
- `table.py`: what was measured, as Markdown.

The harness itself needs the standard library only, so that it shares no memory with what it
measures but the interpreter.
"""
