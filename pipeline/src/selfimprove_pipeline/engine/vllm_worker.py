"""Ties each worker process of vLLM to the process that holds the engine.

vLLM imports this module in every worker that it starts, before it loads weights, and importing it
is the act. Left to themselves, workers notice the end of a killed parent late or, inside a
collective operation, never. Neighbours: `vllm_engine` names the class below; `lifeline` does it.
"""

import multiprocessing

from selfimprove_pipeline.machine.lifeline import die_with_parent


class Tied:
    """What vLLM mixes into its worker class; it adds nothing."""


_parent = multiprocessing.parent_process()
if _parent is not None and _parent.pid is not None:
    die_with_parent(_parent.pid)
