"""One trial: data, noise, method, epoch loop, evaluation, clocks, checkpoint, divergence; its outcome is a record.

(The design calls this room `bench.run`; that name belongs to the function that users import, see `docs/decisions.md`.)
"""
