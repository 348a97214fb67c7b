"""A worker for a real engine, in the existing convention: the task `t` is the workflow `t_workflow` with one task `t`, its input
{"args": […], "kwargs": {…}}. The tasks are those of core_tasks and some of its own; beside those two workflows that take one object.

    hatchet_worker.py NAME [SLOTS]

Needs hatchet-sdk; reads HATCHET_CLIENT_TOKEN. The engine lists it once it is registered."""
import functools
import sys
import time
from datetime import timedelta

from hatchet_sdk import Context, EmptyModel, Hatchet
from pydantic import BaseModel

import core_tasks

hatchet = Hatchet()
workflows = []


class Call(BaseModel):
    args: list = []
    kwargs: dict = {}


class Document(BaseModel):
    document: str


def task(function, **limits):
    """The functions take the run's context and what their callers gave."""
    name = function.__name__
    workflow = hatchet.workflow(name=name + "_workflow", input_validator=Call)

    @workflow.task(name=name, **limits)
    def execute(call: Call, context: Context) -> dict:
        result = function(context, *call.args, **call.kwargs)
        # The SDK takes objects only; anything else goes under the task's name.
        return result if isinstance(result, dict) else {name: result}
    workflows.append(workflow)
    return function


def without_context(function):
    @functools.wraps(function)
    def call(_context, *args, **kwargs):
        return function(*args, **kwargs)
    return call


for core in core_tasks.TASKS:
    task(without_context(core))


@task
def rt_echo(_context, *args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@task
def rt_sum(_context, a, b):
    return a + b


@task
def rt_length(_context, text):
    return len(text)


@task
def rt_fail(_context, message):
    raise ValueError(message)


@task
def rt_slow(context, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not context.is_cancelled:
        time.sleep(0.02)
    return {"slept": seconds}


def rt_flaky(context):
    if context.retry_count == 0:
        raise ValueError("flaky attempt 0")
    return {"attempt": context.retry_count + 1}


def rt_timeout(context):
    rt_slow(context)


task(rt_flaky, retries=1)
task(rt_timeout, execution_timeout=timedelta(seconds=2))

pipeline = hatchet.workflow(name="document-pipeline", input_validator=Document)


@pipeline.task(name="extract-text")
def extract_text(given: Document, _context: Context) -> dict:
    return {"text": given.document}


@pipeline.task(name="process-llm", parents=[extract_text])
def process_llm(_given: Document, context: Context) -> dict:
    return {"summary": context.task_output(extract_text)["text"].upper()}


single_object = hatchet.workflow(name="single-object", input_validator=EmptyModel)


@single_object.task(name="single-object")
def give_back(given: EmptyModel, _context: Context) -> dict:
    return given.model_dump()


if __name__ == "__main__":
    slots = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    hatchet.worker(sys.argv[1], slots=slots, workflows=workflows + [pipeline, single_object]).start()
