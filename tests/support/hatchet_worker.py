"""A worker in the existing convention, for a real engine: the task `t` is the workflow `t_workflow` with one task `t`, its input
{"args": […], "kwargs": {…}}. Needs hatchet-sdk; reads HATCHET_CLIENT_TOKEN. The engine lists it once it is registered."""
import time
from datetime import timedelta

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel


class Call(BaseModel):
    args: list = []
    kwargs: dict = {}


def rt_echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


def rt_sum(a, b):
    return a + b


def rt_fail(message):
    raise ValueError(message)


def rt_slow(seconds=60):
    for _ in range(int(seconds * 20)):
        time.sleep(0.05)
    return {"slept": seconds}


def main():
    hatchet = Hatchet()
    workflows = []

    def register(function, **limits):
        name = function.__name__
        workflow = hatchet.workflow(name=name + "_workflow", input_validator=Call)

        @workflow.task(name=name, **limits)
        def execute(call: Call, _context: Context) -> dict:
            result = function(*call.args, **call.kwargs)
            # The SDK takes objects only; anything else goes under the task's name.
            return result if isinstance(result, dict) else {name: result}
        workflows.append(workflow)
        return execute

    for function in (rt_echo, rt_sum, rt_fail, rt_slow):
        register(function)

    def rt_timeout():
        rt_slow(60)
    register(rt_timeout, execution_timeout=timedelta(seconds=2))
    worker = hatchet.worker("router-test-worker", slots=50, workflows=workflows)
    print("starting", flush=True)
    worker.start()


if __name__ == "__main__":
    main()
