"""Plays the agent's part of the context cases with whatever client and instrumentation a script brings.

Environment as in `common`, and MODEL_URL is the server of `context_server`.
"""

import contextlib
import json
import sys
import threading
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import MODEL_URL, provider  # noqa: F401 - scripts take `provider` from here
from opentelemetry import context, trace
from opentelemetry.trace import Status, StatusCode

SYSTEM = "You take notes of reports."


class Conversation:
    """What was said so far, and the options of the next request."""

    def __init__(self, ask, case, history=()):
        self.ask = ask
        self.case = case
        self.history = list(history)
        self.tools = 0
        self.max_tokens = None
        self.url = f"{MODEL_URL}/{case['number']}"

    def call(self, *, dies=False):
        try:
            answer = self.ask(self.url, self.case["model"], self.history, self.tools, self.max_tokens)
        except Exception:
            if dies:
                raise
            return
        self.history.append(("assistant", answer))

    def step(self, step):
        if "say" in step:
            if self.history and self.history[-1][0] == "user":  # the last question was not answered
                self.history[-1] = ("user", self.history[-1][1] + " " + step["say"])
            else:
                self.history.append(("user", step["say"]))
            self.call(dies=step.get("dies", False))
        elif "again" in step:
            self.call()
        elif "tool" in step:
            self.tool(**step["tool"])
        elif "compact" in step:
            self.history = [("user", step["compact"]), ("assistant", "Understood.")]
        elif "clear" in step:
            cleared = [(role, "[cleared]") for role, _ in self.history[1 : step["clear"]]]
            self.history[1 : step["clear"]] = cleared
        elif "drop" in step:
            del self.history[1 : 1 + step["drop"]]
        elif "forget" in step:
            self.history = []
        elif "branches" in step:
            self.branches(step["branches"])
        for name in ("tools", "max_tokens"):
            if name in step:
                setattr(self, name, step[name])

    def tool(self, name, arguments, result="", error=""):
        with trace.get_tracer("play").start_as_current_span(f"execute_tool {name}") as span:
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.tool.name", name)
            span.set_attribute("gen_ai.tool.call.arguments", json.dumps(arguments))
            if error:
                span.record_exception(ValueError(error.removeprefix("ValueError: ")))
                span.set_status(Status(StatusCode.ERROR, error))
            else:
                span.set_attribute("gen_ai.tool.call.result", result)
        self.history.append(("user", f"The tool {name} said: {result or error}"))
        self.call()

    def branches(self, plays):
        here = context.get_current()
        turn = threading.Barrier(len(plays))

        def run(steps):
            token = context.attach(here)
            mine = Conversation(self.ask, self.case, self.history)
            for step in steps:
                with contextlib.suppress(threading.BrokenBarrierError):
                    turn.wait(5)
                mine.step(step)
            turn.abort()
            context.detach(token)

        threads = [threading.Thread(target=run, args=(steps,)) for steps in plays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def play(protocol, ask, made):
    """`ask(url, model, history, tools, max_tokens)` returns the text of the answer or raises what its client raises."""
    with urllib.request.urlopen(f"{MODEL_URL}/cases/{protocol}") as answer:  # noqa: S310 - the server beside us
        cases = json.load(answer)
    tracer = trace.get_tracer("play")
    for case in cases:
        with tracer.start_as_current_span("invoke_agent reporter") as root:
            root.set_attribute("gen_ai.operation.name", "invoke_agent")
            root.set_attribute("gen_ai.agent.name", "reporter")
            root.set_attribute("test.case", case["name"])
            conversation = Conversation(ask, case)
            try:
                for step in case["steps"]:
                    conversation.step(step)
            except Exception as error:
                root.record_exception(error)
                root.set_attribute("error.type", type(error).__qualname__)
                root.set_status(Status(StatusCode.ERROR, str(error)[:500]))
    made.shutdown()


def openai_ask():
    import openai

    def ask(url, model, history, tools, max_tokens):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        messages = [{"role": "system", "content": SYSTEM}, *({"role": r, "content": text} for r, text in history)]
        options = {"max_tokens": max_tokens} if max_tokens else {}
        if tools:
            options["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": f"report_{number}",
                        "description": "Reads one of the many reports that the regions send in, and says what is in it",
                        "parameters": {"type": "object", "properties": {"week": {"type": "string"}}},
                    },
                }
                for number in range(tools)
            ]
        return client.chat.completions.create(model=model, messages=messages, **options).choices[0].message.content

    return ask


def anthropic_ask():
    import anthropic

    def ask(url, model, history, tools, max_tokens):
        client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        messages = [{"role": role, "content": text} for role, text in history]
        answer = client.messages.create(model=model, max_tokens=max_tokens or 1024, system=SYSTEM, messages=messages)
        return answer.content[0].text

    return ask
