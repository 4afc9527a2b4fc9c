"""How much memory a model takes, told from its config and the recipe before anything is bought.

`shape` reads what a `config.json` says of a model; `training` and `inference` count bytes a
device, `host` those of a node's memory and disk; `gpus` knows the devices; `advice` judges.
Nothing here reads a file, asks a machine or imports torch.
"""
