"""Ready when a command exits with 0."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Self

from pydantic import Field

from runtime._problems import Problem, ProblemsError
from runtime._specs import Text
from runtime.process._exceptions import SpawnError, SurvivorsError, exit_in_words
from runtime.process.child import StopPlan, open_child
from runtime.process.host import Host
from runtime.process.output import Output, StreamName
from runtime.process.spawn import Command
from runtime.supervision.budget import StopBudget
from runtime.supervision.unit import UnitHandle

from ._candidate import Candidate, Strategy, probing
from ._params import Params, Places

#: The variable that tells the command the pid of the process that it is to check.
PID_VARIABLE = "RUNTIME_PID"
# What the kernel does not let go of when it is killed is waited for so long.
_KILL = StopPlan(signum=SIGKILL, timeout=1.0)
_LONGEST_WORDS = 200


class ExecParams(Params):
    """A command that exits with 0 once the process is ready."""

    command: list[Text] = Field(
        min_length=1,
        description="The program and its arguments, without a shell: a path relative to the base"
        " directory, or a name to look up on PATH.",
        examples=[["pg_isready", "-q"]],
    )

    def resolve(self, places: Places) -> Self:
        """Make the program's path absolute."""
        program, *arguments = self.command
        try:
            path, _ = places.find.executable(Path(program), places.base, places.search)
        except ValueError as error:
            raise ProblemsError([Problem(("command", 0), str(error))]) from error
        return self.model_copy(update={"command": [str(path), *arguments]})


async def probe_exec(params: ExecParams, host: Host, candidate: Candidate) -> bool:
    """Return whether ``command`` exits with 0.

    It runs as the process does: in its environment and folder, as its user, within its limits. The
    environment also has its pid, as `RUNTIME_PID`. When the command ends, and when this is
    cancelled, all that the command has started is killed.
    """
    candidate.obstacle = "its command has not ended yet"
    output, unit = Output(host.secrets), candidate.unit or UnitHandle("check", StopBudget())
    try:
        # Its end begins a budget: that of the process goes on for as long as the process does.
        with unit.budget.open_child() as budget:
            check = UnitHandle(unit.path, budget, on_note=unit.note)
            command = _derive(params, host, candidate)
            async with open_child(command, host, output, _KILL, check) as child:
                returncode = await child.wait_exit()
    except (SpawnError, SurvivorsError) as error:
        candidate.obstacle = f"its command: {error}"
        return False
    words = _last_words(output)
    candidate.obstacle = f"its command {exit_in_words(returncode)}{words and f': {words}'}"
    return returncode == 0


def _derive(params: ExecParams, host: Host, candidate: Candidate) -> Command:
    """Return the command, like that of the candidate but for what is run."""
    like = candidate.command or Command(
        name="process", argv=(), working_directory=None, env=os.environ
    )
    # A unit of its own, for descendants are known by its name: those of the process are not the
    # check's, whose end kills them, nor the other way round.
    name = f"{like.name}/check"
    pid = {} if candidate.family is None else {PID_VARIABLE: str(candidate.family.leader)}
    env: Mapping[str, str] = {**like.env, **pid, **host.marker(name)}
    return replace(like, name=name, argv=params.command, env=env)


def _last_words(output: Output) -> str:
    """Return the last line that says something, of stderr if there is one, for that is for errors.

    (Which of the two streams was written to last cannot be told.)
    """
    last: dict[StreamName, str] = {}
    for line in (entry.item for entry in output.lines.tail()):
        if line.text.strip():
            last[line.stream] = line.text.strip()
    return (last.get("stderr") or last.get("stdout", ""))[:_LONGEST_WORDS]


EXEC: Strategy[ExecParams] = Strategy(params=ExecParams, wait=probing(probe_exec), probe=probe_exec)
