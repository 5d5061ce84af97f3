"""Who does the work: agents, driven under a shim that never outlives the daemon.

Kept empty of imports: the shim is started once per attempt and pays for every module.
"""
