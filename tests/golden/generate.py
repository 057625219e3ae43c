#!/usr/bin/python3
"""Make a golden case from a rule's definition, in float64 and plain Python.

    generate.py CASE RULE [OPTION=VALUE ...] [--out DIR]     write CASE.json, .safetensors
    generate.py --check [DIR]                                compute known cases again

A case is 50 updates of problem p1 (README.md, "Kinds"). RULE is a function below, written
from the paper with one element at a time: that is all a new rule needs here. Options that
are not given have the rule's defaults; weight_decay and decay are understood for all.

--check computes cases that independent implementations have confirmed, and fails if one
differs by more than rounding: so the arithmetic around the rule is known to be right.
"""
import argparse
import json
import math
import os
import struct
import sys

STEPS, CHECKPOINTS, STATE_AT = 50, [1, 2, 3, 5, 10, 20, 50], [10, 50]
RTOL = 4e-6
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")

# ------------------------------------------------------------------ the rules
# Each takes the options, the update's number from 1, the gradient and its state arrays'
# values for one element, and returns the direction and the new state. Numbers may be
# float64 or Single (below), so nothing but + - * / and what math offers through `a`.


def sgd(o, t, g, state, a):
    return g, state


def momentum(o, t, g, state, a):
    gain = {"velocity": o["lr"], "heavy_ball": 1.0, "ema": 1.0 - o["momentum"]}
    buffer = a.of(o["momentum"]) * state[0] + a.of(gain[o["momentum_form"]]) * g
    return buffer, [buffer]


def lion(o, t, g, state, a):
    """Chen et al. 2023, algorithm 2."""
    m = state[0]
    blend = a.of(o["beta1"]) * m + a.of(1 - o["beta1"]) * g
    kept = a.of(o["beta2"]) * m + a.of(1 - o["beta2"]) * g
    sign = (float(blend) > 0) - (float(blend) < 0)
    return a.of(float(sign)), [kept]


def adam(o, t, g, state, a):
    """Kingma and Ba 2015, algorithm 1; eps outside the root."""
    m = a.of(o["beta1"]) * state[0] + a.of(1 - o["beta1"]) * g
    v = a.of(o["beta2"]) * state[1] + a.of(1 - o["beta2"]) * g * g
    c1, c2 = 1 - o["beta1"] ** t, 1 - o["beta2"] ** t
    direction = (m / a.of(c1)) / (a.sqrt(v / a.of(c2)) + a.of(o["eps"]))
    return direction, [m, v]


RULES = {  # function, state arrays, defaults, whether the direction contains lr
    "sgd": (sgd, [], {"lr": 0.01}, lambda o: False),
    "momentum": (momentum, ["momentum_buffer"],
                 {"lr": 0.01, "momentum": 0.9, "momentum_form": "velocity"},
                 lambda o: o["momentum_form"] == "velocity"),
    "lion": (lion, ["exp_avg"], {"lr": 0.0001, "beta1": 0.9, "beta2": 0.99},
             lambda o: False),
    "adam": (adam, ["exp_avg", "exp_avg_sq"],
             {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
              "eps_mode": "outside_sqrt", "bias_correction": True}, lambda o: False),
}
EVERYWHERE = {"weight_decay": 0.0, "decay": "coupled", "decay_lr": "lr",
              "schedule": "constant", "warmup_steps": 0, "clip": "none",
              "layerwise": "none", "lookahead_k": 0}

# ------------------------------------------------------------------ arithmetic


class Double:
    """float64, as Python has it."""

    @staticmethod
    def of(x):
        return float(x)

    sqrt = staticmethod(math.sqrt)
    stored = of


def rounded(x):
    return struct.unpack("f", struct.pack("f", x))[0]


class Stored(Double):
    """float64 between values that are stored as float32."""

    @staticmethod
    def stored(x):
        return rounded(x)


class Number(float):
    """A float32: every operation rounds."""

    def __add__(self, other):
        return Number(rounded(float(self) + float(other)))

    def __sub__(self, other):
        return Number(rounded(float(self) - float(other)))

    def __mul__(self, other):
        return Number(rounded(float(self) * float(other)))

    def __truediv__(self, other):
        return Number(rounded(float(self) / float(other)))


class Single:
    """float32 throughout."""

    @staticmethod
    def of(x):
        return Number(rounded(float(x)))

    @staticmethod
    def sqrt(x):
        return Number(rounded(math.sqrt(float(x))))

    stored = of


def train(options, init, gradients, arithmetic):
    """Weights and states of one tensor after each checkpoint: {T: (w, states)}."""
    a = arithmetic
    rule, names, _, includes_lr = RULES[options["rule"]]
    decay, mode = options["weight_decay"], options["decay"]
    step = a.of(1.0 if includes_lr(options) else options["lr"])
    w = [a.of(x) for x in init]
    states = [[a.of(0.0) for _ in init] for _ in names]
    kept = {}
    for t in range(1, STEPS + 1):
        for i, gradient in enumerate(gradients[t - 1]):
            g = a.of(gradient)
            if mode == "coupled":
                g = g + a.of(decay) * w[i]
            u, new = rule(options, t, g, [s[i] for s in states], a)
            if mode == "update":
                u = u + a.of(decay * (options["lr"] if includes_lr(options) else 1)) * w[i]
            move = step * u
            if mode == "decoupled":
                move = a.of(options["lr"] * decay) * w[i] + move
            w[i] = a.stored(w[i] - move)
            for s, value in zip(states, new):
                s[i] = a.stored(value)
        if t in CHECKPOINTS or t in STATE_AT:
            kept[t] = ([float(x) for x in w], [[float(x) for x in s] for s in states])
    return kept


# ------------------------------------------------------------------ files


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        begin, end = (8 + size + x for x in entry["data_offsets"])
        kind = {"F32": "f", "F64": "d"}[entry["dtype"]]
        count = (end - begin) // struct.calcsize(kind)
        out[name] = (entry["shape"], struct.unpack(f"<{count}{kind}", data[begin:end]))
    return out


def write(path, metadata, arrays):
    header, data = {"__metadata__": metadata}, b""
    for name in sorted(arrays):
        shape, values = arrays[name]
        more = struct.pack(f"<{len(values)}d", *values)
        header[name] = {"dtype": "F64", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(more)]}
        data += more
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def problem(folder):
    """{tensor: (shape, initial values, [gradient of each update])}."""
    arrays = read(os.path.join(folder, "problem_p1.safetensors"))
    out = {}
    for name, (shape, values) in arrays.items():
        if name.startswith("init/"):
            n = len(values)
            _, all_of_them = arrays["grad/" + name[5:]]
            out[name[5:]] = (shape, values, [all_of_them[t * n:(t + 1) * n]
                                             for t in range(STEPS)])
    return out


# ------------------------------------------------------------------ a case


def run(options, folder, arithmetic):
    """Every array of a case, by its name in the file."""
    names, out = RULES[options["rule"]][1], {}
    for tensor, (shape, init, gradients) in problem(folder).items():
        for t, (w, states) in train(options, init, gradients, arithmetic).items():
            if t in CHECKPOINTS:
                out[f"params/{t}/{tensor}"] = (shape, w)
            if t in STATE_AT:
                for name, values in zip(names, states):
                    out[f"state/{t}/{tensor}/{name}"] = (shape, values)
    return out


def tolerance(exact, others, belongs, least):
    """8 times what float32 is off beyond RTOL, rounded up to one digit."""
    worst = 0.0
    for name, (_, values) in exact.items():
        if belongs(name):
            for other in others:
                for x, y in zip(values, other[name][1]):
                    worst = max(worst, abs(x - y) - RTOL * abs(x))
    allowed = max(8 * worst, least)
    digit = 10.0 ** math.floor(math.log10(allowed))
    return float(f"{math.ceil(allowed / digit - 1e-9) * digit:.0e}")


def generate(case, options, out):
    names = RULES[options["rule"]][1]
    exact = run(options, FOLDER, Double)
    others = [run(options, FOLDER, Single), run(options, FOLDER, Stored)]
    description = {
        "format": "optimd-golden/1", "case": case, "kind": "stored", "problem": "p1",
        "steps": STEPS, "checkpoints": CHECKPOINTS, "rtol": RTOL,
        "atol_params": tolerance(exact, others, lambda n: n.startswith("params/"), 2e-7),
        "atol_state": {name: tolerance(exact, others,
                                       lambda n, s=name: n.endswith("/" + s), 1e-9)
                       for name in names},
        "config": options,
    }
    with open(os.path.join(out, case + ".json"), "w", encoding="utf-8") as file:
        json.dump(description, file, indent=1)
        file.write("\n")
    write(os.path.join(out, case + ".safetensors"),
          {"format": "optimd-golden/1", "case": case, "problem": "p1"}, exact)
    index = os.path.join(out, "index.json")
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            listed = json.load(file)
        entry = {key: description[key] for key in
                 ("case", "kind", "problem", "atol_params", "atol_state")}
        listed["cases"] = [e for e in listed["cases"] if e["case"] != case] + [entry]
        with open(index, "w", encoding="utf-8") as file:
            json.dump(listed, file, indent=1)
            file.write("\n")


def options_of(rule, words):
    options = {"rule": rule, **RULES[rule][2], **EVERYWHERE}
    for word in words:
        name, value = word.split("=", 1)
        if name not in options:
            sys.exit(f"{rule} has no option {name} here: it has {', '.join(options)}")
        kind = type(options[name])
        options[name] = value == "true" if kind is bool else kind(value)
    return options


def check(folder):
    """Cases that others have computed, again."""
    failed = 0
    for case in ["sgd", "adam", "adamw", "momentum", "sgd_decay_coupled", "lion"]:
        path = os.path.join(folder, case)
        if not os.path.exists(path + ".json"):
            print(f"{case}: is not there")
            failed += 1
            continue
        with open(path + ".json", encoding="utf-8") as file:
            options = {**EVERYWHERE, **json.load(file)["config"]}
        expected, worst = read(path + ".safetensors"), 0.0
        got = run(options, folder, Double)
        for name, (_, values) in got.items():
            for x, y in zip(values, expected[name][1]):
                worst = max(worst, abs(x - y) / (1e-9 + abs(y)))
        print(f"{case}: {worst:.1e}")
        failed += not worst < 1e-9
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--check", nargs="?", const=FOLDER, metavar="DIR",
                        help="compute known cases again and compare")
    parser.add_argument("--out", default=FOLDER, metavar="DIR")
    parser.add_argument("case", nargs="?")
    parser.add_argument("rule", nargs="?", choices=RULES)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    arguments = parser.parse_args()
    if arguments.check is not None:
        sys.exit(1 if check(arguments.check) else 0)
    if arguments.rule is None:
        parser.error("a case and its rule, or --check")
    generate(arguments.case, options_of(arguments.rule, arguments.options), arguments.out)


if __name__ == "__main__":
    main()
