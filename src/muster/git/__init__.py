"""Git as plumbing: repositories, refs, the fence, work folders. Below the channels, which carry it.

A file here runs git or reads what git wrote; none knows of machines, streams or tasks.
"""
