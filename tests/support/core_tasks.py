"""The tasks that every worker of the tests has, as plain functions: the core registry of the existing Python workers, their
`execute_extraction`, and tasks by which a test sees what arrived, how often something ran, and when it is to end.

As a program it is a handler of the embedded worker: `core_tasks.py TASK` takes the call from standard input and puts the result on standard
output.
"""
import json
import os
import sys
import time
import traceback

RUNS = os.environ.get("RUNS_FOLDER", ".")


def add_numbers(a, b):
    return a + b


def concat_with_number(base_string, number):
    return "%s%s" % (base_string, number)


def format_result_message(number):
    return "Result is %s" % number


def process_data(data, operation="validate"):
    result = {"original": data, "operation": operation, "processed_at": time.time(), "status": "completed"}
    if operation == "validate":
        result["valid"] = isinstance(data, dict) and len(data) > 0
    elif operation == "transform":
        result["transformed"] = {key: str(value).upper() for key, value in data.items()}
    elif operation == "count":
        result["count"] = len(data)
    return result


def health_check():
    return {"status": "healthy", "timestamp": time.time(), "worker": "task-abstraction", "message": "Worker is operational"}


def echo(message):
    return "Echo: %s" % message


def simulate_work(duration=1):
    start = time.time()
    while (rest := start + duration - time.time()) > 0:
        time.sleep(min(rest, 0.05))  # in pieces: a worker that stops can end it in between
    return {"requested_duration": duration, "actual_duration": time.time() - start, "start_time": start, "end_time": time.time(),
            "status": "completed"}


def execute_extraction(context):
    if context["executor_params"].get("explode"):
        return {"success": False, "data": {}, "metadata": {}, "error": "the model refused"}
    return {"success": True, "error": None, "metadata": {"executor": context["executor_name"]},
            "data": {"operation": context["operation"], "echo": context["executor_params"], "run_id": context.get("run_id"),
                     "organization": context.get("organization_id"), "request": context.get("request_id")}}


# --- what a test sees by ------------------------------------------------------------------------------------------------

def note(what):
    """One line in the file that tests count; lines of several processes do not mix."""
    with open(os.path.join(RUNS, "runs"), "ab", buffering=0) as file:
        file.write(what.encode() + b"\n")


def give_back(value):
    return value


def give_size(value):
    return len(value)


def describe(value):
    """What has arrived, in Python's own words."""
    return repr(value)


def fail(message):
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise ValueError(message) from inner


def count(key):
    note(key)
    return key


def step(n):
    """Of chaos.py: its number is noted, and answered in legacy's shape."""
    note(str(n))
    return {"n": n, "side": "task"}


def held():
    try:
        with open(os.path.join(RUNS, "held"), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def hold(key):
    """Runs as long as the file `held` beside that of the runs says what it said at first, if it says anything."""
    first = held()
    note("begin " + key)
    while first and held() == first:
        time.sleep(0.02)
    note("end " + key)
    return key


CORE = [add_numbers, concat_with_number, format_result_message, process_data, health_check, echo, simulate_work]
TASKS = CORE + [execute_extraction, give_back, give_size, describe, fail, count, step, hold]


def main():
    call = json.load(sys.stdin)
    try:
        print(json.dumps(next(t for t in TASKS if t.__name__ == sys.argv[1])(*call["args"], **call["kwargs"])))
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
