"""What every visavis process shares: settings, server, worker, stage streams, errors, leases, registry, telemetry.

Nothing here imports torch; a stage's engine is named as "module:callable" and imported in the worker process only.
"""
