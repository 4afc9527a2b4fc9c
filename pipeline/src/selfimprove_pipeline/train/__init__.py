"""Stage train: pairs and the model M_t become the model M_(t+1) by DPO with an NLL term.

The only package that imports trl, deepspeed and peft, and torch for training. `stage.run` is
called on every rank; `processes.launch` starts the ranks of one machine. The package writes a
folder and talks to storage through `stage.Vault`; it knows neither buckets nor pods.
"""
