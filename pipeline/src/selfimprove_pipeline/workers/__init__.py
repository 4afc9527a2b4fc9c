"""What runs in one process for one iteration: the places where stages, store and engine meet.

`setting` is what a run is on this machine; `survey` is what of it is already in the store.
`inference`, `light` and `training` each do a stage's missing part and commit it; `check` and
`delete` are what a cluster does before and after a run. The local runner starts them as
processes, an operator as pods, both through `command`.
"""
