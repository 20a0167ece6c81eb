"""One component in a container, looked up and started as a task of Airflow does it: contained.py NAME INPUTS RUN."""

import json
import sys

from telecine import component, settings
from telecine.execution import Call, reuse
from telecine.launch import Launch
from telecine.runners import container


def main() -> int:
    """Exit code of the component; 0 where its work is done already."""
    name, inputs, run = sys.argv[1:]
    found, here = component.find(name), settings.from_environment()
    parsed = found.parse(json.loads(inputs))
    where, result = reuse(Call(component=found, inputs=parsed, run=run, task=name, settings=here))
    if result is not None:
        return 0
    launch = Launch(component=found, inputs=parsed, run=run, task=name, key=where.key, settings=here)
    child = container.start(launch)
    assert child.stdout is not None
    for line in child.stdout:
        print(line, end="")
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
