"""A node that classifies: softmax regression with the tensors `w` and `b` of a model file.

Settings: `model`, a path (the digits model beside this file); `compute_us`, the virtual time of one inference (1000).
`inference_request {input: [..]}` is answered by `inference_result {label, confidence}`.
"""

import json
import math
import os

from aileron_cosim import Agenda, Event, Start, Step, Window, run

DIGITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits_model.json")


class Inference:
    def __init__(self):
        self.weights, self.biases = [], []
        self.compute_us = 1000
        self.free_us = 0
        self.agenda = Agenda()

    def init(self, start: Start) -> None:
        path = start.config.get("model", DIGITS)
        with open(path, encoding="utf-8") as file:
            model = json.load(file)
        # A row for each input, a column for each class.
        self.weights, self.biases = model["w"], model["b"]
        if not self.weights or any(len(row) != len(self.biases) for row in self.weights):
            raise ValueError(f"{path}: the shapes of `w` and `b` do not fit")
        self.compute_us = int(start.config.get("compute_us", 1000))

    def advance(self, window: Window) -> Step:
        for event in window.events:
            if event.type == "inference_request":
                # One at a time: a request waits for those before it.
                self.free_us = max(event.time_us, self.free_us) + self.compute_us
                answer = Event("inference_result", dst=event.src, payload=self.answer(event.payload), size_bytes=64)
                self.agenda.put(self.free_us, answer)
        return Step(self.agenda.take_until(window.to_us), self.agenda.next_us)

    def answer(self, request) -> dict:
        width = len(self.weights)
        values = request.get("input") if isinstance(request, dict) else None
        numbers = isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)
        if not numbers or len(values) != width:
            return {"error": f"`input` should be a list of {width} numbers"}
        return self.classify(values)

    def classify(self, values: list) -> dict:
        scores = [
            bias + math.fsum(value * row[label] for value, row in zip(values, self.weights))
            for label, bias in enumerate(self.biases)
        ]
        most = max(scores)
        confidence = 1 / math.fsum(math.exp(score - most) for score in scores)
        return {"label": scores.index(most), "confidence": confidence}


if __name__ == "__main__":
    inference = Inference()
    run(inference.advance, inference.init)
