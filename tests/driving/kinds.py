"""A parameter of every kind."""

from __future__ import annotations

from gs_search.study.space import Parameter

KINDS = (
    Parameter(name="share", kind="float", low=0.1, high=0.9, log=True),
    Parameter(name="plain", kind="float", low=-1.0, high=3.0),
    Parameter(name="grid", kind="float", low=0.5, high=2.0, step=0.25),
    Parameter(name="whole", kind="int", low=2, high=9),
    Parameter(name="steps", kind="int", low=10, high=50, step=20),
    Parameter(name="log", kind="int", low=1, high=64, log=True),
    Parameter(name="bits", kind="choice", choices=(8, 6, 3)),
    Parameter(name="rule", kind="choice", choices=("a", "b")),
    Parameter(name="only_a", kind="float", low=0.0, high=1.0, when=(("rule", ("a",)),)),
)
