"""What runs in one process for one iteration: the places where stages, store and engine meet.

`inference`, `pairing` and `training` each do the missing part of some stages and commit it, with
the `tasks` that one engine or judge works on; `check` and `delete` are what a cluster does before
and after a run. The local runner starts them as processes, an operator as pods, both through
`command`.
"""
